package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"

	"weft/keys"
	"weft/keys/store"
	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

// keyring holds the private keys of the live generations, and what was agreed on with other nodes. Its lock is its own:
// the kernel's appliers ask it while others wait for them with the agent's lock.
type keyring struct {
	store *store.Store

	mu          sync.Mutex
	generations map[int]*generation
	psk         map[keys.PublicKey]keys.PresharedKey // by the peer's WireGuard key
}

// generation is one generation's keys.
type generation struct {
	private keys.PrivateKey
	kem     keys.KEMPrivate
	secret  keys.ClusterSecret
	pairs   map[string]store.Pair
}

func newKeyring(s *store.Store) *keyring {
	return &keyring{store: s, generations: map[int]*generation{}, psk: map[keys.PublicKey]keys.PresharedKey{}}
}

// load takes a generation's keys from disk, making those that are missing; secret is mixed into a generation that is
// new.
func (k *keyring) load(g int, secret keys.ClusterSecret) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.generations[g] != nil {
		return nil
	}
	known, err := k.store.Generations()
	if err != nil {
		return err
	}
	fresh := true
	for _, have := range known {
		fresh = fresh && have != g
	}
	if fresh {
		if err := k.store.SetSecret(g, secret); err != nil {
			return err
		}
	}
	var n generation
	if n.secret, err = k.store.Secret(g); err != nil {
		return err
	}
	if n.pairs, err = k.store.Pairs(g); err != nil {
		return err
	}
	if n.kem, err = k.store.KEM(g); err != nil {
		return err
	}
	if n.private, err = k.store.WireGuard(g); err != nil {
		return err
	}
	k.generations[g] = &n
	return nil
}

// keep removes the keys of all generations but those in live, in memory and on disk.
func (k *keyring) keep(live []int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	known, err := k.store.Generations()
	if err != nil {
		return err
	}
	needed := map[int]bool{}
	for _, g := range live {
		needed[g] = true
	}
	var errs []error
	for _, g := range known {
		if !needed[g] {
			errs = append(errs, k.store.RemoveGeneration(g))
		}
	}
	for g := range k.generations {
		if !needed[g] {
			delete(k.generations, g)
		}
	}
	return errors.Join(errs...)
}

// private finds the private half of a WireGuard key of this node.
func (k *keyring) private(pub keys.PublicKey) (keys.PrivateKey, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, g := range k.generations {
		if g.private.Public() == pub {
			return g.private, true
		}
	}
	return keys.PrivateKey{}, false
}

// preshared is the preshared key for a peer's WireGuard key, nil for none.
func (k *keyring) preshared(pub keys.PublicKey) *keys.PresharedKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	psk, ok := k.psk[pub]
	if !ok {
		return nil
	}
	return &psk
}

// fingerprints tells the preshared keys apart, by the peer's WireGuard key.
func (k *keyring) fingerprints() map[keys.PublicKey]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make(map[keys.PublicKey]string, len(k.psk))
	for pub, psk := range k.psk {
		out[pub] = psk.Fingerprint()
	}
	return out
}

// public is what a record says of some generations.
func (k *keyring) public(generations []int, ports []uint16) []overlay.WireGuardKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []overlay.WireGuardKey
	for _, n := range generations {
		if g := k.generations[n]; g != nil {
			out = append(out, overlay.WireGuardKey{Generation: n, PublicKey: g.private.Public(), Port: portOf(n, ports), KEM: g.kem.Public()})
		}
	}
	return out
}

// portOf is the port of a generation: they alternate as the devices do.
func portOf(generation int, ports []uint16) uint16 {
	if kstate.WGName(generation) == kstate.WGName(1) {
		return ports[0]
	}
	return ports[1]
}

// readSecret reads trust.secret_file; the zero value when none is configured.
func readSecret(path string) (keys.ClusterSecret, error) {
	if path == "" {
		return keys.ClusterSecret{}, nil
	}
	text, err := store.ReadSecret(path)
	if err == nil {
		var s keys.ClusterSecret
		if s, err = keys.NewClusterSecret(bytes.TrimSpace(text)); err == nil {
			return s, nil
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w: make it on one node with `openssl rand -base64 48` and copy it to all", err)
	}
	return keys.ClusterSecret{}, fmt.Errorf("read trust.secret_file: %w", err)
}
