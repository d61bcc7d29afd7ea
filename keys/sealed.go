package keys

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

// A signer's key lies on the operator's machine, encrypted under a passphrase: Argon2id (RFC 9106) makes a key of it,
// XChaCha20-Poly1305 seals the seed, with everything else in the file as additional data.

// sealedFormat names the form of the file.
const sealedFormat = "weft signer 1"

// The cost of Argon2id: RFC 9106 section 4, second recommended option, with its memory in KiB.
const (
	sealTime    = 3
	sealMemory  = 64 << 10
	sealThreads = 4
	// maxSealMemory in KiB and maxSealTime bound what a file may ask of who opens it.
	maxSealMemory = 1 << 20
	maxSealTime   = 64
)

// sealed is the file. Its members but the last are additional data, in this order.
type sealed struct {
	Format  string      `json:"format"`
	Name    string      `json:"name"`
	Public  IdentityKey `json:"public"`
	KDF     string      `json:"kdf"`
	Time    uint32      `json:"time"`
	Memory  uint32      `json:"memory"`
	Threads uint8       `json:"threads"`
	Salt    []byte      `json:"salt"`
	Nonce   []byte      `json:"nonce"`
	Sealed  []byte      `json:"sealed"`
}

// MinPassphrase is the least length of a passphrase in bytes.
const MinPassphrase = 12

// SealIdentity encrypts an identity under a passphrase; name is for people.
func SealIdentity(id Identity, name string, passphrase []byte) ([]byte, error) {
	if len(passphrase) < MinPassphrase {
		return nil, fmt.Errorf("seal key: the passphrase has %d bytes: use at least %d, as several words", len(passphrase), MinPassphrase)
	}
	if id.IsZero() {
		return nil, errors.New("seal key: there is none")
	}
	s := sealed{Format: sealedFormat, Name: name, Public: id.Public(), KDF: "argon2id", Time: sealTime, Memory: sealMemory, Threads: sealThreads,
		Salt: make([]byte, 16), Nonce: make([]byte, chacha20poly1305.NonceSizeX)}
	_, _ = rand.Read(s.Salt) // never fails (crypto/rand)
	_, _ = rand.Read(s.Nonce)
	aead, ad, err := s.cipher(passphrase)
	if err != nil {
		return nil, err
	}
	seed := id.Reveal()
	s.Sealed = aead.Seal(nil, s.Nonce, seed[:], ad)
	b, err := json.MarshalIndent(s, "", "  ")
	return append(b, '\n'), err
}

type opener interface {
	Seal(dst, nonce, plaintext, ad []byte) []byte
	Open(dst, nonce, ciphertext, ad []byte) ([]byte, error)
}

func (s sealed) cipher(passphrase []byte) (opener, []byte, error) {
	s.Sealed = nil
	ad, err := json.Marshal(s)
	if err != nil {
		return nil, nil, fmt.Errorf("seal key: %w", err)
	}
	key := argon2.IDKey(passphrase, s.Salt, s.Time, s.Memory, s.Threads, chacha20poly1305.KeySize)
	aead, err := chacha20poly1305.NewX(key)
	return aead, ad, err
}

// SealedName reads the name and public key of a sealed identity, which are not secret and not proved.
func SealedName(file []byte) (string, IdentityKey, error) {
	s, err := parseSealed(file)
	return s.Name, s.Public, err
}

// OpenIdentity decrypts what SealIdentity made.
func OpenIdentity(file, passphrase []byte) (Identity, error) {
	s, err := parseSealed(file)
	if err != nil {
		return Identity{}, err
	}
	aead, ad, err := s.cipher(passphrase)
	if err != nil {
		return Identity{}, err
	}
	seed, err := aead.Open(nil, s.Nonce, s.Sealed, ad)
	if err != nil || len(seed) != Size {
		return Identity{}, errors.New("open sealed key: the passphrase is wrong, or the file was changed")
	}
	id, err := IdentityFrom([Size]byte(seed))
	if err != nil || id.Public() != s.Public {
		return Identity{}, errors.New("open sealed key: it is not the key that the file names")
	}
	return id, nil
}

func parseSealed(file []byte) (s sealed, err error) {
	dec := json.NewDecoder(bytes.NewReader(file))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return s, errors.New("open sealed key: not a signer's key file")
	}
	switch {
	case s.Format != sealedFormat || s.KDF != "argon2id":
		return s, errors.New("open sealed key: not a signer's key file of a known form")
	case s.Time < 1 || s.Time > maxSealTime || s.Memory < 8*uint32(s.Threads) || s.Memory > maxSealMemory || s.Threads < 1,
		len(s.Salt) < 8 || len(s.Salt) > 64, len(s.Nonce) != chacha20poly1305.NonceSizeX, len(s.Sealed) != Size+chacha20poly1305.Overhead:
		return s, errors.New("open sealed key: the file's figures are out of range")
	}
	return s, nil
}

var recoveryText = base32.StdEncoding.WithPadding(base32.NoPadding)

// RecoveryText is an identity to be printed on paper: groups of four letters and digits. The last two bytes are a check.
func (id Identity) RecoveryText() string {
	seed := id.Reveal()
	check := id.Public()
	text := recoveryText.EncodeToString(append(seed[:], check[0], check[1]))
	var groups []string
	for len(text) > 0 {
		n := min(4, len(text))
		groups, text = append(groups, text[:n]), text[n:]
	}
	return strings.Join(groups, "-")
}

// ParseRecovery reads what RecoveryText printed, in any case and with any spaces; the error does not quote it.
func ParseRecovery(s string) (Identity, error) {
	s = strings.ToUpper(strings.NewReplacer("-", "", " ", "", "\n", "", "\t", "", "\r", "").Replace(s))
	raw, err := recoveryText.DecodeString(s)
	if err == nil && len(raw) == Size+2 {
		id, err := IdentityFrom([Size]byte(raw[:Size]))
		if err == nil {
			if p := id.Public(); p[0] == raw[Size] && p[1] == raw[Size+1] {
				return id, nil
			}
		}
	}
	return Identity{}, errors.New("parse recovery key: a letter is wrong or missing")
}
