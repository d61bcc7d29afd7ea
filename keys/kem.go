package keys

import (
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// Pairwise preshared keys. WireGuard's own key agreement is X25519 only; the preshared key is what keeps a recording of
// today's packets closed to tomorrow's quantum computer. The two nodes of a pair agree on it by a hybrid KEM: RFC 9180
// (HPKE) with MLKEM768-X25519, that is ML-KEM-768 (FIPS 203) and X25519 under one combiner, so that breaking one of the
// two is not enough. What travels through the store is a public key and a ciphertext, both in signed records.

// KEMSize is the length in bytes of a KEMKey: an ML-KEM-768 encapsulation key and an X25519 public key.
const KEMSize = 1184 + 32

// CiphertextSize is the length in bytes of what Encapsulate makes for the other side.
const CiphertextSize = 1088 + 32

// pskContext names the export of the HPKE context, and with it the version of this scheme.
const pskContext = "weft/v1 preshared key"

// KEMKey is the public half of a node's key for agreeing on preshared keys: KEMSize bytes. Comparable with ==; its text
// form is standard base64. The zero value means "none".
type KEMKey string

// IsZero reports whether k is the zero value.
func (k KEMKey) IsZero() bool { return k == "" }

// String is the first characters of the base64 form: the whole is 1,624 of them.
func (k KEMKey) String() string {
	if len(k) < 6 {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(k[:6])) + "..."
}

// MarshalText implements encoding.TextMarshaler.
func (k KEMKey) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, []byte(k)), nil
}

// UnmarshalText implements encoding.TextUnmarshaler; k is unchanged on error. The key itself is checked by Validate.
func (k *KEMKey) UnmarshalText(b []byte) error {
	if len(b) != base64.StdEncoding.EncodedLen(KEMSize) {
		return fmt.Errorf("parse KEM key: not %d bytes in base64", KEMSize)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(string(b))
	if err != nil || len(raw) != KEMSize {
		return fmt.Errorf("parse KEM key: not %d bytes in base64", KEMSize)
	}
	*k = KEMKey(raw)
	return nil
}

// Validate reports whether something can be encapsulated to k (FIPS 203 section 7.2).
func (k KEMKey) Validate() error {
	if _, err := hpke.MLKEM768X25519().NewPublicKey([]byte(k)); err != nil {
		return fmt.Errorf("KEM key %s: %w", k, err)
	}
	return nil
}

// KEMPrivate is the private half of a KEMKey. It prints as "(redacted)" everywhere; the zero value means "none".
type KEMPrivate struct{ secret }

// NewKEMPrivate makes a random key.
func NewKEMPrivate() (KEMPrivate, error) {
	b, err := randomSecret()
	if err != nil {
		return KEMPrivate{}, fmt.Errorf("make KEM key: %w", err)
	}
	return KEMPrivateFrom(b)
}

// KEMPrivateFrom takes the seed that Reveal returned. All zero bytes are refused.
func KEMPrivateFrom(seed [Size]byte) (KEMPrivate, error) {
	if seed == [Size]byte{} {
		return KEMPrivate{}, errors.New("take KEM key: all bytes are zero")
	}
	return KEMPrivate{newSecret(seed)}, nil
}

// Equal compares in constant time.
func (k KEMPrivate) Equal(o KEMPrivate) bool { return k.equal(o.secret) }

// Public is the public half; the zero KEMKey for the zero value.
func (k KEMPrivate) Public() KEMKey {
	if k.IsZero() {
		return ""
	}
	return KEMKey(k.private().PublicKey().Bytes())
}

func (k KEMPrivate) private() hpke.PrivateKey {
	seed := k.Reveal()
	p, err := hpke.MLKEM768X25519().NewPrivateKey(seed[:])
	if err != nil {
		panic("keys: MLKEM768-X25519 refuses 32 bytes: " + err.Error())
	}
	return p
}

// Encapsulate makes a secret that only the holder of k's private half learns from the ciphertext. info says what the
// secret is for; both sides must give the same.
func (k KEMKey) Encapsulate(info []byte) (ciphertext []byte, shared PresharedKey, err error) {
	pub, err := hpke.MLKEM768X25519().NewPublicKey([]byte(k))
	if err != nil {
		return nil, PresharedKey{}, fmt.Errorf("agree on a preshared key: %w", err)
	}
	ciphertext, s, err := hpke.NewSender(pub, hpke.HKDFSHA256(), hpke.ExportOnly(), info)
	if err != nil {
		return nil, PresharedKey{}, fmt.Errorf("agree on a preshared key: %w", err)
	}
	b, err := s.Export(pskContext, Size)
	if err != nil {
		return nil, PresharedKey{}, fmt.Errorf("agree on a preshared key: %w", err)
	}
	shared, err = PresharedKeyFrom([Size]byte(b))
	return ciphertext, shared, err
}

// Decapsulate is the other side of Encapsulate. A ciphertext made for another key, or with another info, gives another
// secret and no error, or an error.
func (k KEMPrivate) Decapsulate(ciphertext, info []byte) (PresharedKey, error) {
	if k.IsZero() || len(ciphertext) != CiphertextSize {
		return PresharedKey{}, fmt.Errorf("agree on a preshared key: no key, or not %d bytes of ciphertext", CiphertextSize)
	}
	r, err := hpke.NewRecipient(ciphertext, k.private(), hpke.HKDFSHA256(), hpke.ExportOnly(), info)
	if err != nil {
		return PresharedKey{}, fmt.Errorf("agree on a preshared key: %w", err)
	}
	b, err := r.Export(pskContext, Size)
	if err != nil {
		return PresharedKey{}, fmt.Errorf("agree on a preshared key: %w", err)
	}
	return PresharedKeyFrom([Size]byte(b))
}

// ClusterSecret is what trust.secret_file holds, hashed: known to the cluster's nodes and not to the store. It prints as
// "(redacted)" everywhere; the zero value means "none".
type ClusterSecret struct{ secret }

// MinSecret is the least length in bytes of a cluster secret: it must not be guessable, since whoever has a recording
// and the KEM broken could try guesses against it.
const MinSecret = 32

// NewClusterSecret takes the content of a secret file without the white space around it, at least MinSecret bytes.
func NewClusterSecret(text []byte) (ClusterSecret, error) {
	if len(text) < MinSecret {
		return ClusterSecret{}, fmt.Errorf("the cluster secret has %d bytes: use at least %d random ones, as from `openssl rand -base64 48`", len(text), MinSecret)
	}
	return ClusterSecretFrom(sha256.Sum256(append([]byte("weft/v1 cluster secret\x00"), text...)))
}

// ClusterSecretFrom takes what Reveal returned. All zero bytes are refused.
func ClusterSecretFrom(b [Size]byte) (ClusterSecret, error) {
	if b == [Size]byte{} {
		return ClusterSecret{}, errors.New("take cluster secret: all bytes are zero")
	}
	return ClusterSecret{newSecret(b)}, nil
}

// Equal compares in constant time.
func (s ClusterSecret) Equal(o ClusterSecret) bool { return s.equal(o.secret) }

// Mix is the preshared key of two nodes that agreed on k and share the cluster secret s; s may be zero.
func (k PresharedKey) Mix(s ClusterSecret, info []byte) (PresharedKey, error) {
	ikm, salt := k.Reveal(), s.Reveal()
	b, err := hkdf.Key(sha256.New, ikm[:], salt[:], "weft/v1 mixed preshared key\x00"+string(info), Size)
	if err != nil {
		return PresharedKey{}, fmt.Errorf("mix preshared key: %w", err)
	}
	return PresharedKeyFrom([Size]byte(b))
}

// Fingerprint tells preshared keys apart without telling them: 8 hexadecimal digits, "" for the zero value. It is a hash
// of 32 random bytes, so nothing follows from it.
func (k PresharedKey) Fingerprint() string {
	if k.IsZero() {
		return ""
	}
	b := k.Reveal()
	sum := sha256.Sum256(append([]byte("weft/v1 fingerprint\x00"), b[:]...))
	return hex.EncodeToString(sum[:4])
}
