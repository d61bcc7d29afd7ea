package keys

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Size is the length in bytes of every key of this package.
const Size = 32

// redacted is what a secret prints as.
const redacted = "(redacted)"

// secret holds 32 bytes that must not print. They live in a closure, because fmt, encoders and debug printers reach
// unexported fields by reflection, also behind pointers, without asking any method: a function is all they find. It
// also makes the type incomparable, so that == (which is not constant time) does not compile.
type secret struct {
	reveal func() [Size]byte
}

func newSecret(b [Size]byte) secret {
	return secret{reveal: func() [Size]byte { return b }}
}

// randomSecret draws 32 bytes from the system's generator.
func randomSecret() (b [Size]byte, err error) {
	_, err = rand.Read(b[:])
	return b, err
}

// Reveal returns the secret's bytes, all zero for the zero value. The caller keeps them from being printed.
func (s secret) Reveal() [Size]byte {
	if s.reveal == nil {
		return [Size]byte{}
	}
	return s.reveal()
}

// IsZero reports whether there is no secret.
func (s secret) IsZero() bool { return s.reveal == nil }

// String implements fmt.Stringer: "(redacted)".
func (s secret) String() string { return redacted }

// Format implements fmt.Formatter: "(redacted)" under every verb.
func (s secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer: "(redacted)".
func (s secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler: "(redacted)". There is no way back.
func (s secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// equal compares in constant time.
func (s secret) equal(o secret) bool {
	a, b := s.Reveal(), o.Reveal()
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// errKeyText never quotes its input: it might be a secret in the wrong place.
var errKeyText = errors.New("not 32 bytes in base64 (44 characters)")

// parseText reads the one base64 form of 32 bytes. Strict, because the decoder otherwise skips line breaks and
// ignores trailing bits, and one key would have many spellings.
func parseText(s string) (b [Size]byte, err error) {
	if len(s) != base64.StdEncoding.EncodedLen(Size) {
		return b, errKeyText
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != Size {
		return b, errKeyText
	}
	return [Size]byte(raw), nil
}

func formatText(b [Size]byte) string { return base64.StdEncoding.EncodeToString(b[:]) }
