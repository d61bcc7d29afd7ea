package agent

import (
	"context"
	"fmt"
	"maps"
	"time"

	"weft/pkg/api"
	"weft/pkg/kstate"
	"weft/pkg/overlay"
	"weft/pkg/rotate"
	"weft/pkg/wireguard"
)

// The pace at which a change of keys looks at the kernel, wall time; records that come wake it at once.
const (
	rotateIdle = time.Second
	rotateBusy = 100 * time.Millisecond
	// rotateSettle is how old a session must be before it carries traffic. Two handshakes that cross are begun anew by
	// one side within 160 ms (pkg/wireguard, first contact), and that side then knows nothing of the session before.
	rotateSettle = 500 * time.Millisecond
)

// rotateLoop takes the steps of a change of WireGuard keys: pkg/rotate decides, this does.
func (a *Agent) rotateLoop(ctx context.Context) error {
	pause := rotateIdle
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.rotateKick:
		case <-time.After(pause):
		}
		if err := a.rotateOnce(ctx); err != nil && ctx.Err() == nil {
			a.note("rotation", fmt.Sprintf("change of WireGuard keys does not go on: %v; retrying", err))
		}
		pause = rotateIdle
		a.mu.Lock()
		if a.state.Keys.Changing() {
			pause = rotateBusy
		}
		a.mu.Unlock()
	}
}

func (a *Agent) rotateOnce(ctx context.Context) error {
	a.mu.Lock()
	s, ready := a.state.Keys, a.state.VTEP.IsValid() && !a.leaving
	asked := a.rotateAsked
	a.mu.Unlock()
	snap := a.snap.Load()
	if !ready || snap == nil || !snap.Complete {
		return nil
	}
	peers, err := a.rotatePeers(ctx, s, snap)
	if err != nil {
		return err
	}
	a.carry(rotate.Carried(s, peers))
	w := rotate.World{Node: a.opt.Config.NodeName, Now: time.Now(), Peers: peers, Every: a.cfg.Load().WireGuard.RotateEvery, Asked: asked, Broken: a.broken(s)}
	if a.cannotChange(snap) != "" {
		w.Every, w.Asked = 0, false
	}
	step := rotate.Next(s, w)
	a.note("rotation", step.Problem)
	if step.Event == "" {
		return nil
	}
	return a.rotateTo(ctx, s, step)
}

// cannotChange names a node that has no second device, "" when all have: the engine's own data path runs on one. Nodes
// change together, so none begins.
func (a *Agent) cannotChange(s *overlay.Snapshot) string {
	if a.backend.Name() == wireguard.EngineName {
		return a.opt.Config.NodeName
	}
	if s == nil {
		return ""
	}
	for _, name := range sortedNames(s.Nodes) {
		if n := s.Nodes[name]; n.Present() && n.Backend == wireguard.EngineName {
			return name
		}
	}
	return ""
}

// rotatePeers is what records and devices say of the other nodes. The devices are only asked during a change.
func (a *Agent) rotatePeers(ctx context.Context, s rotate.State, snap *overlay.Snapshot) ([]rotate.Peer, error) {
	type at struct {
		device string
		key    string
	}
	sessions := map[at]rotate.Session{}
	if s.Changing() {
		stats, err := a.kernel.PeerStats(ctx)
		if err != nil {
			return nil, err
		}
		now := time.Now()
		for _, x := range stats {
			age := now.Sub(x.LastHandshake)
			if x.LastHandshake.IsZero() || age >= 0 && age < rotateSettle && x.Device == kstate.WGName(s.Newest()) {
				continue
			}
			sessions[at{x.Device, x.PublicKey.String()}] = rotate.Session{Proved: true, Fresh: age < peerUp}
		}
	}
	var out []rotate.Peer
	for _, name := range sortedNames(snap.Nodes) {
		n := snap.Nodes[name]
		if name == a.opt.Config.NodeName || !n.Present() {
			continue
		}
		p := rotate.Peer{Name: name, Sessions: map[int]rotate.Session{}}
		for _, k := range n.WireGuard {
			p.Published = append(p.Published, k.Generation)
			p.Sessions[k.Generation] = sessions[at{kstate.WGName(k.Generation), k.PublicKey.String()}]
		}
		// A session of a generation that the record no longer has counts as long as it lives: the other side may not
		// know yet that it is not needed.
		out = append(out, p)
	}
	return out, nil
}

// carry moves routes to the generations that carry traffic now.
func (a *Agent) carry(to map[string]int) {
	a.mu.Lock()
	same := maps.Equal(a.carried, to)
	a.carried = to
	a.mu.Unlock()
	if !same {
		a.loop.Kick()
	}
}

// broken says why the newest generation's device cannot be used.
func (a *Agent) broken(s rotate.State) string {
	if !s.Changing() {
		return ""
	}
	name := kstate.WGName(s.Newest())
	for _, f := range a.loop.Status().Last.Failed {
		switch it := f.Op.Item.(type) {
		case kstate.Link:
			if it.Name == name {
				return oneLine(f.Error())
			}
		case kstate.WGDevice:
			if it.Name == name {
				return oneLine(f.Error())
			}
		}
	}
	return ""
}

// rotateTo takes a step. Its order is what makes a crash harmless: keys are on disk before the state that names them,
// the state before what follows from it; routes have moved before the record says so; keys go last.
func (a *Agent) rotateTo(ctx context.Context, from rotate.State, step rotate.Step) error {
	to := step.State
	secret, err := readSecret(a.opt.Config.Trust.SecretFile)
	if err != nil && !to.Changing() {
		err = nil // no new generation is made
	}
	if err != nil {
		return err
	}
	a.crash("keys")
	for _, g := range to.Live {
		if err := a.ring.load(g, secret); err != nil {
			return err
		}
	}
	if to.Leaving { // every route must have moved
		r, err := a.loop.Do(ctx)
		if err != nil {
			return err
		}
		for _, f := range r.Failed {
			if f.Op.Group == kstate.TransitGroup {
				return fmt.Errorf("move routes to key generation %d: %w", to.Newest(), f)
			}
		}
	}
	a.crash("state")
	a.mu.Lock()
	a.state.Keys, a.rotateAsked = to, false
	err = a.saveLocked()
	if err != nil {
		a.state.Keys = from
	}
	a.mu.Unlock()
	if err != nil {
		return err
	}
	level := a.log.Info
	if step.Warn {
		level = a.log.Warn
	}
	level(step.Event)
	a.crash("saved")
	kick(a.pairKick)
	if len(to.Live) > len(from.Live) { // others should not knock before the device is there
		if _, err := a.loop.Do(ctx); err != nil {
			return err
		}
	}
	a.crash("device")
	kick(a.publishKick)
	if len(to.Live) < len(from.Live) || to.Live[0] != from.Live[0] {
		if _, err := a.loop.Do(ctx); err != nil {
			return err
		}
		a.crash("removed")
		if err := a.ring.keep(to.Live); err != nil {
			return err
		}
		a.syncPairsSoon()
	}
	return nil
}

func (a *Agent) syncPairsSoon() { kick(a.pairKick) }

// RotateKeys implements apiserver.Keys: a change of the WireGuard keys begins, here and by that on all nodes.
func (a *Agent) RotateKeys(ctx context.Context) (api.KeyStatus, error) {
	if name := a.cannotChange(a.snap.Load()); name != "" {
		return api.KeyStatus{}, apiErr(api.Conflict, "node %s has the backend engine, which cannot change keys yet, and nodes change together: set wireguard.backend to kernel or engine-tun on it", name)
	}
	a.mu.Lock()
	ready := a.joined && a.state.VTEP.IsValid()
	changing := a.state.Keys.Changing()
	if ready && !changing {
		a.rotateAsked = true
	}
	a.mu.Unlock()
	switch {
	case !ready:
		return api.KeyStatus{}, apiErr(api.Unavailable, "this node has not joined yet, and a change of keys needs Consul: see `weft status`")
	case changing:
		return a.Keys(ctx)
	}
	kick(a.rotateKick)
	for range 50 { // until it has begun
		a.mu.Lock()
		begun := !a.rotateAsked
		a.mu.Unlock()
		if begun || !wait(ctx, 20*time.Millisecond) {
			break
		}
	}
	return a.Keys(ctx)
}

// Keys implements apiserver.Keys.
func (a *Agent) Keys(context.Context) (api.KeyStatus, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.keyStatusLocked(), nil
}

func (a *Agent) keyStatusLocked() api.KeyStatus {
	s := a.state.Keys
	k := api.KeyStatus{Generation: s.Newest(), Changing: s.Changing(), Since: s.Since, Carried: maps.Clone(a.carried), Problem: a.notes["rotation"]}
	if !k.Changing {
		k.Carried = nil
		if every := a.cfg.Load().WireGuard.RotateEvery; every > 0 {
			k.Next = s.Since.Add(every)
		}
	} else {
		k.From = s.Live[0]
	}
	return k
}
