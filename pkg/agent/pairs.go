package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"weft/consul"
	"weft/keys"
	"weft/keys/store"
	"weft/pkg/ledger"
	"weft/pkg/overlay"
)

// pairInfo is what a preshared key is for. Both sides bind it into the agreement, so that a ciphertext is worth nothing
// for another pair, generation or cluster.
func pairInfo(cluster, from, to string, g int, fromKey, toKey keys.PublicKey) []byte {
	return fmt.Appendf(nil, "weft/v1 pair\x00%s\x00%s\x00%s\x00%d\x00%s\x00%s", cluster, from, to, g, fromKey, toKey)
}

// pairLoop agrees with every other node on preshared keys for the generations that both have, as records come.
func (a *Agent) pairLoop(ctx context.Context) error {
	for {
		if err := a.syncPairs(); err != nil {
			a.note("keys", fmt.Sprintf("preshared keys: %v", err))
		} else {
			a.note("keys", "")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.pairKick:
		}
	}
}

// syncPairs brings the pairs up to what the records say. What is new is on disk before it is used.
func (a *Agent) syncPairs() error {
	s := a.snap.Load()
	if s == nil {
		return nil
	}
	self := a.opt.Config.NodeName
	a.mu.Lock()
	secrets := map[string]overlay.KEM{}
	if a.ledger != nil {
		for name := range s.Nodes {
			if k, ok := a.ledger.KEM(self, name); ok {
				secrets[name] = k
			}
		}
	}
	a.mu.Unlock()
	changed, err := a.ring.agree(s, self, secrets)
	if changed {
		a.loop.Kick()
		kick(a.publishKick)
	}
	return err
}

// agree makes what is missing: this node encapsulates to those whose names sort after its own, and reads what the others
// encapsulated to it.
func (k *keyring) agree(s *overlay.Snapshot, self string, secrets map[string]overlay.KEM) (changed bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	psk := map[keys.PublicKey]keys.PresharedKey{}
	for n, g := range k.generations {
		moved := false
		for _, name := range sortedNames(s.Nodes) {
			p := s.Nodes[name]
			their, ok := p.Generation(n)
			if name == self || !p.Present() || !ok || their.KEM.IsZero() {
				continue
			}
			pair, new, err := g.pair(s.Cluster, self, name, their, secrets[name])
			if err != nil {
				errs = append(errs, fmt.Errorf("node %s, generation %d: %w", name, n, err))
			}
			if pair.Shared.IsZero() {
				continue
			}
			if new {
				g.pairs[name], moved = pair, true
			}
			from, to, fromKey, toKey := direction(self, name, g.private.Public(), their.PublicKey)
			mixed, err := pair.Shared.Mix(g.secret, pairInfo(s.Cluster, from, to, n, fromKey, toKey))
			if err != nil {
				errs = append(errs, err)
				continue
			}
			psk[their.PublicKey] = mixed
		}
		if moved {
			if err := k.store.SetPairs(n, g.pairs); err != nil {
				return false, errors.Join(append(errs, err)...)
			}
		}
	}
	for pub, v := range psk {
		if have, ok := k.psk[pub]; !ok || !have.Equal(v) {
			changed = true
		}
	}
	k.psk = psk
	return changed, errors.Join(errs...)
}

// direction orders a pair: the node whose name sorts first encapsulates.
func direction(self, peer string, own, their keys.PublicKey) (from, to string, fromKey, toKey keys.PublicKey) {
	if self < peer {
		return self, peer, own, their
	}
	return peer, self, their, own
}

// pair is what this node and a peer agreed on; new says that it was not known before. A zero Shared means not yet.
func (g *generation) pair(cluster, self, peer string, their overlay.WireGuardKey, said overlay.KEM) (p store.Pair, new bool, err error) {
	have, ok := g.pairs[peer]
	ok = ok && have.Key == their.PublicKey
	own := g.private.Public()
	from, to, fromKey, toKey := direction(self, peer, own, their.PublicKey)
	info := pairInfo(cluster, from, to, their.Generation, fromKey, toKey)
	if self == from {
		if ok {
			return have, false, nil
		}
		p = store.Pair{Peer: peer, Key: their.PublicKey}
		p.Ciphertext, p.Shared, err = their.KEM.Encapsulate(info)
		return p, true, err
	}
	e, told := said.Generation(their.Generation)
	switch {
	case !told || e.FromKey != fromKey || e.ToKey != toKey, ok && bytes.Equal(e.Ciphertext, have.Ciphertext):
		if !ok {
			have = store.Pair{} // of another key
		}
		return have, false, nil
	}
	p = store.Pair{Peer: peer, Key: their.PublicKey, Ciphertext: e.Ciphertext}
	p.Shared, err = g.kem.Decapsulate(e.Ciphertext, info)
	return p, true, err
}

// encapsulated is what this node has to tell each peer, by name.
func (k *keyring) encapsulated(self string, live []int) map[string][]overlay.Encapsulated {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string][]overlay.Encapsulated{}
	for _, n := range live {
		g := k.generations[n]
		if g == nil {
			continue
		}
		for name, p := range g.pairs {
			if self < name {
				out[name] = append(out[name], overlay.Encapsulated{Generation: n, FromKey: g.private.Public(), ToKey: p.Key, Ciphertext: p.Ciphertext})
			}
		}
	}
	return out
}

// kemRecordsLocked are this node's own records of key agreements. One that says more than is needed stays: what it says
// of a generation that is gone opens nothing any more.
func (a *Agent) kemRecordsLocked() []ownRecord {
	self := a.opt.Config.NodeName
	var out []ownRecord
	all := a.ring.encapsulated(self, a.state.Keys.Live)
	for _, peer := range sortedNames(all) {
		want := all[peer]
		out = append(out, ownRecord{path: consul.KEMPath(peer, self), kind: ledger.KindKEM,
			same: func(body []byte) bool {
				var have overlay.KEM
				if json.Unmarshal(body, &have) != nil {
					return false
				}
				for _, w := range want {
					if h, ok := have.Generation(w.Generation); !ok || h.FromKey != w.FromKey || h.ToKey != w.ToKey || !bytes.Equal(h.Ciphertext, w.Ciphertext) {
						return false
					}
				}
				return true
			},
			at: func(rev uint64) any {
				return overlay.KEM{From: self, To: peer, Secrets: slices.Clone(want), Revision: rev}
			}})
	}
	return out
}
