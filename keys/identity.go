package keys

import (
	"crypto/ed25519"
	"errors"
	"fmt"
)

// IdentityKey is the public half of a node's identity (Ed25519). Comparable with ==, usable as a map key; its text
// form is standard base64. The zero value means "none".
type IdentityKey [Size]byte

// ParseIdentityKey reads the base64 form; the error does not quote the input.
func ParseIdentityKey(s string) (IdentityKey, error) {
	b, err := parseText(s)
	if err != nil {
		return IdentityKey{}, fmt.Errorf("parse identity key: %w", err)
	}
	return IdentityKey(b), nil
}

// String is the base64 form, 44 characters.
func (k IdentityKey) String() string { return formatText(k) }

// Short is the first 8 characters of the base64 form: enough to tell keys apart in a log, not to trust one.
func (k IdentityKey) Short() string { return k.String()[:8] }

// IsZero reports whether k is the zero value.
func (k IdentityKey) IsZero() bool { return k == IdentityKey{} }

// MarshalText implements encoding.TextMarshaler.
func (k IdentityKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; k is unchanged on error.
func (k *IdentityKey) UnmarshalText(b []byte) error {
	v, err := ParseIdentityKey(string(b))
	if err == nil {
		*k = v
	}
	return err
}

// Identity is the private half of a node's identity: it signs the node's records, see [Envelope.Seal]. It prints as
// "(redacted)" everywhere; the zero value means "none". Copies share nothing mutable and may be used concurrently.
type Identity struct{ secret }

// NewIdentity makes a random identity.
func NewIdentity() (Identity, error) {
	b, err := randomSecret()
	if err != nil {
		return Identity{}, fmt.Errorf("make identity: %w", err)
	}
	return IdentityFrom(b)
}

// IdentityFrom takes an Ed25519 seed (RFC 8032 section 5.1.5), what Reveal returned. All zero bytes are refused.
func IdentityFrom(seed [Size]byte) (Identity, error) {
	if seed == [Size]byte{} {
		return Identity{}, errors.New("take identity: all bytes are zero")
	}
	return Identity{newSecret(seed)}, nil
}

// Public is the public half; the zero IdentityKey for the zero value.
func (id Identity) Public() IdentityKey {
	if id.IsZero() {
		return IdentityKey{}
	}
	return IdentityKey(id.private().Public().(ed25519.PublicKey))
}

// Equal compares in constant time.
func (id Identity) Equal(o Identity) bool { return id.equal(o.secret) }

func (id Identity) private() ed25519.PrivateKey {
	seed := id.Reveal()
	return ed25519.NewKeyFromSeed(seed[:])
}
