package store

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"weft/keys"
)

// KEM returns the key of a generation (from 1) for agreeing on preshared keys, making it when there is none.
func (s *Store) KEM(generation int) (keys.KEMPrivate, error) {
	return loadOrMake(s, generationFile(kemPrefix, generation), format[keys.KEMPrivate]{
		what:   "KEM key",
		make:   keys.NewKEMPrivate,
		encode: func(k keys.KEMPrivate) string { return encode(k.Reveal()) },
		decode: func(text string) (keys.KEMPrivate, error) {
			b, err := decode(text)
			if err != nil {
				return keys.KEMPrivate{}, err
			}
			return keys.KEMPrivateFrom(b)
		},
	})
}

// Secret returns the cluster secret that a generation was made with; the zero value when it was made without.
func (s *Store) Secret(generation int) (keys.ClusterSecret, error) {
	text, err := s.readGeneration(secretPrefix, generation)
	if err != nil || text == "" {
		return keys.ClusterSecret{}, err
	}
	b, err := decode(text)
	if err != nil {
		return keys.ClusterSecret{}, fmt.Errorf("load cluster secret of generation %d: %w", generation, err)
	}
	return keys.ClusterSecretFrom(b)
}

// SetSecret keeps the cluster secret that a generation is made with; a later change of trust.secret_file is for later
// generations.
func (s *Store) SetSecret(generation int, secret keys.ClusterSecret) error {
	if secret.IsZero() {
		return nil
	}
	return s.writeGeneration(secretPrefix, generation, encode(secret.Reveal())+"\n")
}

// Pair is what this node and another agreed on for a generation.
type Pair struct {
	// Peer is the other node's name, Key its WireGuard key of the generation.
	Peer string
	Key  keys.PublicKey
	// Shared is the secret, before the cluster secret is mixed in.
	Shared keys.PresharedKey
	// Ciphertext is what Shared came from.
	Ciphertext []byte
}

// Pairs returns what was agreed on for a generation, by the other node's name.
func (s *Store) Pairs(generation int) (map[string]Pair, error) {
	text, err := s.readGeneration(pairsPrefix, generation)
	if err != nil {
		return nil, err
	}
	out := map[string]Pair{}
	for line := range strings.Lines(text) {
		p, err := parsePair(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("load pairs of generation %d: %w", generation, err)
		}
		out[p.Peer] = p
	}
	return out, nil
}

// SetPairs replaces what was agreed on for a generation.
func (s *Store) SetPairs(generation int, pairs map[string]Pair) error {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		p := pairs[name]
		fmt.Fprintf(&b, "%s %s %s %s\n", p.Peer, p.Key, encode(p.Shared.Reveal()), base64.StdEncoding.EncodeToString(p.Ciphertext))
	}
	return s.writeGeneration(pairsPrefix, generation, b.String())
}

// parsePair reads one line of a pairs file; the error does not quote it.
func parsePair(line string) (p Pair, err error) {
	part := strings.Split(line, " ")
	if len(part) != 4 || part[0] == "" {
		return p, errMalformed
	}
	p.Peer = part[0]
	if p.Key, err = keys.ParsePublicKey(part[1]); err != nil {
		return p, errMalformed
	}
	b, err := decode(part[2])
	if err != nil {
		return p, errMalformed
	}
	if p.Shared, err = keys.PresharedKeyFrom(b); err != nil {
		return p, errMalformed
	}
	p.Ciphertext, err = base64.StdEncoding.Strict().DecodeString(part[3])
	if err != nil {
		return p, errMalformed
	}
	return p, nil
}

// readGeneration reads a file of a generation, without its last line break where it is one line; "" when there is none.
func (s *Store) readGeneration(prefix string, generation int) (string, error) {
	unlock, err := s.lock()
	if err != nil {
		return "", fmt.Errorf("load keys of generation %d: %w", generation, err)
	}
	defer unlock()
	data, err := readPrivate(filepath.Join(s.dir, generationFile(prefix, generation)))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("load keys of generation %d: %w", generation, err)
	}
	return strings.TrimSuffix(string(data), "\n"), nil
}

func (s *Store) writeGeneration(prefix string, generation int, text string) error {
	unlock, err := s.lock()
	if err != nil {
		return fmt.Errorf("keep keys of generation %d: %w", generation, err)
	}
	defer unlock()
	return WriteFile(filepath.Join(s.dir, generationFile(prefix, generation)), []byte(text), 0o600)
}
