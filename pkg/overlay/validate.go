package overlay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
)

// Records come from a store that others can write, and names and addresses in them become kernel state, file names
// and DNS answers. So whatever was read is validated before anything uses it, and what will be written is validated
// by its writer: a record that others refuse must not be published.

// MaxName is the longest name in bytes: a DNS label's limit (RFC 1035 section 2.3.4).
const MaxName = 63

// The kinds of names, as they stand in errors.
const (
	NetworkName  = "network"
	NodeName     = "node"
	EndpointName = "endpoint"
	ServiceName  = "service"
	AliasName    = "alias"
	PortName     = "port"
)

// reserved words, by kind of name. Networks: words of Docker's and weft's command lines and of the DNS scheme, where
// <x>.<network> would mean something else. The others: "tasks" begins tasks.<service>, "localhost" never leaves a
// host (RFC 6761 section 6.3).
var reserved = map[string][]string{
	NetworkName: {"nodes", "node", "tasks", "host", "none", "bridge", "default", "consul", "weft", "ingress",
		"localhost", "all"},
	NodeName:     {"localhost", "all"},
	EndpointName: {"tasks", "localhost"},
	ServiceName:  {"tasks", "localhost"},
	AliasName:    {"tasks", "localhost"},
}

// CanonicalName is the form of a name that is stored and compared: lower-case. Names that differ only in case are one
// name, and keys in the KV store are case-sensitive, so anything else would let two of them exist.
func CanonicalName(name string) string { return strings.ToLower(name) }

// ValidateName checks a name that a person typed, in any case: Docker's grammar [a-zA-Z0-9][a-zA-Z0-9_.-]*, at most
// MaxName bytes, usable in DNS (no empty label), not an IP address, not reserved for its kind (one of the ...Name
// constants). The error is one line and says what to do. Store CanonicalName(name).
func ValidateName(kind, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s name is empty", kind)
	case len(name) > MaxName:
		return fmt.Errorf("%s name %.20q... is %d characters long: use at most %d", kind, name, len(name), MaxName)
	case !nameGrammar(name):
		return fmt.Errorf("%s name %q is not valid: use letters, digits, '_', '.' and '-', beginning with a letter or digit", kind, name)
	case strings.Contains(name, "..") || strings.HasSuffix(name, "."):
		return fmt.Errorf("%s name %q is not valid: it must work in DNS, put something after each '.'", kind, name)
	case slices.Contains(reserved[kind], CanonicalName(name)):
		return fmt.Errorf("%s name %q is reserved: choose another", kind, name)
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return fmt.Errorf("%s name %q is an IP address: choose another", kind, name)
	}
	return nil
}

func nameGrammar(s string) bool {
	return wordGrammar(s, "_.-")
}

// wordGrammar reports whether s is ASCII letters and digits, and after the first character also those of extra.
func wordGrammar(s, extra string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || strings.IndexByte(extra, c) < 0) {
			return false
		}
	}
	return s != ""
}

// checkStoredName is ValidateName for a name in a record, which must be in its canonical form.
func checkStoredName(kind, name string) error {
	if err := ValidateName(kind, name); err != nil {
		return err
	}
	if name != CanonicalName(name) {
		return fmt.Errorf("%s name %q is not lower-case", kind, name)
	}
	return nil
}

// checkText bounds text of no fixed grammar that will be shown to people: no control characters (a terminal would
// obey them), no more than limit bytes.
func checkText(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%s is longer than %d bytes", what, limit)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }) {
		return fmt.Errorf("%s %.60q holds control characters", what, s)
	}
	return nil
}

func checkRevision(revision uint64) error {
	if revision == 0 {
		return errors.New("revision is 0: revisions count from 1")
	}
	return nil
}
