package config

import (
	"strings"
	"unicode"
)

// SourceKind says what kind of place a value came from.
type SourceKind string

// The kinds, weakest first.
const (
	FromDefault SourceKind = "default"
	FromFile    SourceKind = "file"
	FromEnv     SourceKind = "env"
	FromFlag    SourceKind = "flag"
)

// Source is the place an effective value came from.
type Source struct {
	Kind SourceKind
	// Name is the file's path, the variable's name, the flag with its dashes or, for a default that is looked up, where.
	Name string
}

// String prints "default", "default (host name)", "file /etc/weft/weft.yaml", "env WEFT_POOLS" or "flag --pools".
func (s Source) String() string {
	switch {
	case s.Name == "":
		return string(s.Kind)
	case s.Kind == FromDefault:
		return "default (" + s.Name + ")"
	default:
		return string(s.Kind) + " " + s.Name
	}
}

// place is how an error line names the source.
func (s Source) place() string {
	if s.Kind == FromDefault {
		return s.String()
	}
	return s.Name
}

// Error is one thing wrong with one key, or with a file as a whole.
type Error struct {
	Source Source
	// Key is the full dotted key; empty when the error is about the file or the variable itself.
	Key string
	// Message says what is wrong and what would be right, on one line. It never holds a secret.
	Message string
	// Err is the cause to test with errors.Is, as os.ErrNotExist; may be nil.
	Err error
}

// Error prints "place: key: message" on one line.
func (e *Error) Error() string {
	parts := []string{e.Source.place()}
	if e.Key != "" {
		parts = append(parts, e.Key)
	}
	return oneLine(strings.Join(append(parts, e.Message), ": "))
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errors is everything that is wrong, in the order of the sources; never empty when Load returns it.
type Errors []*Error

// Error prints one line per error.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the single errors.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

// oneLine folds line ends and other control characters, which keys and parser messages may hold, into single spaces.
func oneLine(s string) string {
	pieces := strings.FieldsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' })
	if len(pieces) > 1 {
		for i := range pieces {
			pieces[i] = strings.TrimSpace(pieces[i])
		}
	}
	return strings.Join(pieces, " ")
}
