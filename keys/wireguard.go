package keys

import (
	"crypto/ecdh"
	"errors"
	"fmt"
)

// PublicKey is a WireGuard public key (Curve25519). Comparable with ==, usable as a map key; its text form is
// standard base64, as in wg(8). The zero value means "none".
type PublicKey [Size]byte

// ParsePublicKey reads the base64 form; the error does not quote the input.
func ParsePublicKey(s string) (PublicKey, error) {
	b, err := parseText(s)
	if err != nil {
		return PublicKey{}, fmt.Errorf("parse WireGuard public key: %w", err)
	}
	return PublicKey(b), nil
}

// String is the base64 form, 44 characters.
func (k PublicKey) String() string { return formatText(k) }

// Short is the first 8 characters of the base64 form: enough to tell keys apart in a log, not to trust one.
func (k PublicKey) Short() string { return k.String()[:8] }

// IsZero reports whether k is the zero value.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// MarshalText implements encoding.TextMarshaler.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; k is unchanged on error.
func (k *PublicKey) UnmarshalText(b []byte) error {
	v, err := ParsePublicKey(string(b))
	if err == nil {
		*k = v
	}
	return err
}

// PrivateKey is a WireGuard private key. It prints as "(redacted)" everywhere; the zero value means "none". Copies
// share nothing mutable and may be used concurrently.
type PrivateKey struct{ secret }

// NewPrivateKey makes a random key.
func NewPrivateKey() (PrivateKey, error) {
	b, err := randomSecret()
	if err != nil {
		return PrivateKey{}, fmt.Errorf("make WireGuard private key: %w", err)
	}
	return PrivateKeyFrom(b)
}

// PrivateKeyFrom takes a key's bytes and clamps them (RFC 7748 section 5), as the kernel does, so that a key read
// back from a device is Equal to the one that was set. All zero bytes are refused: WireGuard reads them as "no key".
func PrivateKeyFrom(b [Size]byte) (PrivateKey, error) {
	if b == [Size]byte{} {
		return PrivateKey{}, errors.New("take WireGuard private key: all bytes are zero")
	}
	b[0] &= 248
	b[31] = b[31]&127 | 64
	return PrivateKey{newSecret(b)}, nil
}

// ParsePrivateKey reads the base64 form, as wg genkey prints it; the error does not quote the input.
func ParsePrivateKey(s string) (PrivateKey, error) {
	b, err := parseText(s)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("parse WireGuard private key: %w", err)
	}
	return PrivateKeyFrom(b)
}

// Public is the public half; the zero PublicKey for the zero value.
func (k PrivateKey) Public() PublicKey {
	if k.IsZero() {
		return PublicKey{}
	}
	b := k.Reveal()
	priv, err := ecdh.X25519().NewPrivateKey(b[:])
	if err != nil {
		panic("keys: X25519 refuses 32 bytes: " + err.Error())
	}
	return PublicKey(priv.PublicKey().Bytes())
}

// Equal compares in constant time.
func (k PrivateKey) Equal(o PrivateKey) bool { return k.equal(o.secret) }

// PresharedKey is the symmetric key that two peers mix into their handshakes. It prints as "(redacted)" everywhere;
// the zero value means "none".
type PresharedKey struct{ secret }

// NewPresharedKey makes a random key.
func NewPresharedKey() (PresharedKey, error) {
	b, err := randomSecret()
	if err != nil {
		return PresharedKey{}, fmt.Errorf("make WireGuard preshared key: %w", err)
	}
	return PresharedKeyFrom(b)
}

// PresharedKeyFrom takes a key's bytes. All zero bytes are refused: WireGuard reads them as "no key".
func PresharedKeyFrom(b [Size]byte) (PresharedKey, error) {
	if b == [Size]byte{} {
		return PresharedKey{}, errors.New("take WireGuard preshared key: all bytes are zero")
	}
	return PresharedKey{newSecret(b)}, nil
}

// Equal compares in constant time.
func (k PresharedKey) Equal(o PresharedKey) bool { return k.equal(o.secret) }
