package config

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "(redacted)"

// Secret is text that no print shows: every fmt verb, slog, JSON and text marshalling give "(redacted)", or nothing when it is empty.
// The zero value is the empty secret. It cannot be compared with ==; use Equal. Safe for concurrent use.
type Secret struct {
	_ [0]func()
	// A pointer, because fmt prints the unexported fields of a foreign struct by reflection, without asking Format.
	text *string
}

// NewSecret hides text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: &text}
}

// Reveal returns the text. It must not be printed.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.text == nil }

// Equal compares in constant time for secrets of one length.
func (s Secret) Equal(t Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(t.Reveal())) == 1
}

// String never returns the text.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// GoString never returns the text.
func (s Secret) GoString() string { return s.String() }

// Format never writes the text, whatever the verb.
func (s Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, s.String()) }

// MarshalText never returns the text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue never returns the text.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
