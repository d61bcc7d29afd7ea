package agent

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"weft/consul"
	"weft/keys"
	"weft/pkg/ledger"
	"weft/pkg/overlay"
)

func nodePath(node string) string               { return consul.NodePath(node) }
func endpointsPath(node, network string) string { return consul.EndpointsPath(node, network) }
func networkPath(network string) string         { return consul.NetworkPath(network) }

// ownRecord is a record that this node wants to stand in Consul.
type ownRecord struct {
	path, rev, kind string
	// same reports whether an accepted record already says what is wanted.
	same func(body []byte) bool
	// at is the record with a revision.
	at func(revision uint64) any
}

// publishLoop keeps this node's own records in Consul as they should be: level-triggered, one transaction each, the
// record together with its revision, if it has a key for that.
func (a *Agent) publishLoop(ctx context.Context) error {
	backoff := 100 * time.Millisecond
	var timer <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.publishKick:
		case <-timer:
		}
		timer = nil
		if err := a.publish(ctx); err != nil && ctx.Err() == nil {
			a.note("publish", fmt.Sprintf("own records are not in Consul: %v; retrying", err))
			timer = time.After(backoff/2 + rand.N(backoff))
			backoff = min(backoff*2, 5*time.Second)
			continue
		}
		a.note("publish", "")
		backoff = 100 * time.Millisecond
	}
}

// publish brings all own records up to date in the ledger, then in Consul. One at a time: an older record must not be
// written after a newer one.
func (a *Agent) publish(ctx context.Context) error {
	a.publishing.Lock()
	defer a.publishing.Unlock()
	if err := a.learnOwn(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	if a.ledger == nil || !a.state.VTEP.IsValid() {
		a.mu.Unlock()
		return nil // this node has no place in a cluster yet
	}
	joined := a.joined
	records := a.ownRecordsLocked()
	type due struct {
		rec ledger.Record
		rev string
	}
	var todo []due
	var errs []error
	for _, r := range records {
		if err := a.signLocked(r); err != nil {
			errs = append(errs, err)
			continue
		}
		if rec, ok := a.ledger.Get(r.path); ok && a.synced[r.path] != rec.Revision {
			todo = append(todo, due{rec, r.rev})
		}
	}
	a.mu.Unlock()
	if !joined {
		return errors.Join(errs...) // what is signed is known here; Consul gets it when it answers
	}
	if len(todo) > 0 {
		if err := a.keepLedger(); err != nil { // a revision that others have seen must not be signed again after a crash
			return errors.Join(append(errs, err)...)
		}
	}
	for _, d := range todo {
		ops := []consul.Op{consul.Set(d.rec.Path, d.rec.Value)}
		if d.rec.Revision == 1 && d.rec.Path == nodePath(a.opt.Config.NodeName) && a.floorOf(d.rec.Path) == 0 {
			ops[0] = consul.CAS(d.rec.Path, d.rec.Value, 0) // whoever is first has the name
		}
		if d.rev != "" {
			ops = append(ops, consul.Set(d.rev, []byte(strconv.FormatUint(d.rec.Revision, 10))))
		}
		err := a.consul.Txn(ctx, ops...)
		if errors.Is(err, consul.ErrConflict) {
			err = a.conflict(ctx, d.rec)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		a.mu.Lock()
		a.synced[d.rec.Path] = d.rec.Revision
		if d.rec.Path == nodePath(a.opt.Config.NodeName) && !a.state.Owned {
			a.state.Owned = true
			errs = append(errs, a.saveLocked())
		}
		a.mu.Unlock()
	}
	a.notifyPublished()
	return errors.Join(errs...)
}

// learnOwn reads, once after each start, the records that stand in Consul under this node's name: a data_dir that was
// restored from a backup, or lost, must not sign revisions that the others have seen already.
func (a *Agent) learnOwn(ctx context.Context) error {
	a.mu.Lock()
	skip := a.learned || !a.joined
	a.mu.Unlock()
	if skip {
		return nil
	}
	node := a.opt.Config.NodeName
	pairs, err := a.consul.List(ctx, consul.EndpointsDir(node))
	if err != nil {
		return err
	}
	own, err := a.consul.Get(ctx, nodePath(node))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err == nil {
		pairs = append(pairs, own)
	}
	for _, p := range pairs {
		a.learnOne(node, p)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.learned = true
	return nil
}

// learnOne takes in one record that stands under this node's name.
func (a *Agent) learnOne(node string, p consul.Pair) {
	var head struct {
		Revision  uint64            `json:"revision"`
		Network   string            `json:"network"`
		NetworkID overlay.NetworkID `json:"networkId"`
	}
	if json.Unmarshal(p.Value, &head) != nil {
		return // garbage has no revision to go above
	}
	a.mu.Lock()
	have := a.ledger.Revision(p.Path)
	a.mu.Unlock()
	if head.Revision > have {
		a.offer([]consul.Pair{p})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.floors[p.Path] = max(a.floors[p.Path], min(head.Revision, a.ledger.Revision(p.Path)+maxFloor))
	if _, known := a.state.Published[head.Network]; head.Network != "" && !known && p.Path == endpointsPath(node, head.Network) {
		a.state.Published[head.Network] = head.NetworkID
	}
}

// maxFloor bounds how far a value found in Consul may push this node's revisions.
const maxFloor = 1 << 20

func (a *Agent) floorOf(path string) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.floors[path]
}

// conflict looks at what stands where this node wanted to write its first record: the same bytes (an answer was lost),
// an own record that this data_dir does not know, or another node's.
func (a *Agent) conflict(ctx context.Context, mine ledger.Record) error {
	p, err := a.consul.Get(ctx, mine.Path)
	if err != nil {
		return err
	}
	if bytes.Equal(p.Value, mine.Value) {
		return nil
	}
	a.offer([]consul.Pair{p})
	a.mu.Lock()
	newer := a.ledger.Revision(mine.Path) > mine.Revision
	a.mu.Unlock()
	if newer {
		kick(a.publishKick) // an own record, newer: the next pass goes on from it
		return nil
	}
	owns, err := a.ownsName(ctx)
	if err != nil {
		return err
	}
	if owns {
		return a.consul.Txn(ctx, consul.CAS(mine.Path, mine.Value, p.Version), consul.Set(consul.NodeRevPath(a.opt.Config.NodeName), []byte(strconv.FormatUint(mine.Revision, 10))))
	}
	return fmt.Errorf("%s is taken by another node's record: set another node_name, or free the name with `weft node rm` on another node", mine.Path)
}

// signLocked makes the next revision of a record and accepts it, unless the accepted one says the same.
func (a *Agent) signLocked(r ownRecord) error {
	have, ok := a.ledger.Get(r.path)
	if ok && r.same(have.Value) {
		return nil
	}
	env := keys.Envelope{Kind: r.kind, Cluster: a.state.Cluster, Path: r.path}
	revision := max(a.ledger.Floor(r.path), a.floors[r.path]) + 1
	if r.kind == ledger.KindNode {
		revision = max(revision, a.ledger.RemovedAt(a.opt.Config.NodeName)+1)
	}
	value, err := env.Seal(a.identity, r.at(revision))
	if err != nil {
		return fmt.Errorf("sign record %s: %w", r.path, err)
	}
	if _, err := a.ledger.Offer(r.path, value); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	a.changedLocked()
	return nil
}

// sameAs compares a record read back with the wanted one, both with revision 0.
func sameAs[T any](want T, zero func(*T)) func([]byte) bool {
	w, err := json.Marshal(want)
	return func(body []byte) bool {
		var v T
		if err != nil || json.Unmarshal(body, &v) != nil {
			return false
		}
		zero(&v)
		b, err := json.Marshal(v)
		return err == nil && string(b) == string(w)
	}
}

func (a *Agent) ownRecordsLocked() []ownRecord {
	node := a.opt.Config.NodeName
	n := a.nodeLocked()
	out := []ownRecord{{path: nodePath(node), rev: consul.NodeRevPath(node), kind: ledger.KindNode,
		same: a.sameNodeLocked(n),
		at:   func(rev uint64) any { n := n; n.Revision = rev; return n }}}
	sets := a.setsLocked()
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		set := sets[name]
		out = append(out, ownRecord{path: endpointsPath(node, name), rev: consul.RevPath(name, node), kind: ledger.KindEndpoints,
			same: sameAs(set, func(s *overlay.EndpointSet) { s.Revision = 0 }),
			at:   func(rev uint64) any { set := set; set.Revision = rev; return set }})
	}
	return append(out, a.kemRecordsLocked()...)
}

// sameNodeLocked also asks for a new revision when another node removed this one: by publishing it is present again.
func (a *Agent) sameNodeLocked(n overlay.Node) func([]byte) bool {
	same := sameAs(n, func(n *overlay.Node) { n.Revision = 0 })
	removed := n.Present() && !a.ledger.Snapshot(false).Nodes[n.Name].Present()
	return func(body []byte) bool { return !removed && same(body) }
}

func (a *Agent) nodeLocked() overlay.Node {
	cfg := a.cfg.Load()
	n := overlay.Node{Name: cfg.NodeName, Identity: a.identity.Public(), WireGuard: a.ring.public(a.state.Keys.Published(), cfg.WireGuard.Ports), Underlay: []netip.Addr{a.under.Addr},
		UnderlayMTU: a.under.MTU, VTEP: a.state.VTEP, VXLANPort: cfg.VXLAN.Port, Datacenter: a.state.Datacenter,
		Version: a.opt.Version, Backend: a.backend.Name()}
	if a.leaving || a.goodbye {
		n.Left = a.leftAt
	}
	return n
}

// setsLocked is the wanted endpoint record of each network this node is on, or was on.
func (a *Agent) setsLocked() map[string]overlay.EndpointSet {
	node := a.opt.Config.NodeName
	sets := map[string]overlay.EndpointSet{}
	for name, id := range a.state.Published {
		sets[name] = overlay.EndpointSet{Node: node, Network: name, NetworkID: id, Endpoints: []overlay.Endpoint{}}
	}
	if a.leaving || a.goodbye {
		return sets
	}
	live := map[string]overlay.NetworkID{}
	if s := a.snap.Load(); s != nil {
		for name, n := range s.Networks {
			live[name] = n.ID
		}
	}
	for _, e := range a.state.Endpoints {
		if e.Leaving || live[e.Network] != e.NetworkID {
			continue // of an earlier network of this name: nobody can reach it any more
		}
		s, ok := sets[e.Network]
		if !ok || s.NetworkID != e.NetworkID {
			s = overlay.EndpointSet{Node: node, Network: e.Network, NetworkID: e.NetworkID}
		}
		mac := a.state.Routers[e.NetworkID]
		s.Router = overlay.Router{MAC: mac, Address: mac.LinkLocal()}
		s.Endpoints = append(s.Endpoints, e.Endpoint)
		sets[e.Network] = s
		a.state.Published[e.Network] = e.NetworkID
	}
	for name, s := range sets {
		slices.SortFunc(s.Endpoints, func(x, y overlay.Endpoint) int { return cmp.Compare(x.ID, y.ID) })
		sets[name] = s
	}
	return sets
}

// awaitPublished waits until Consul holds the newest own records of a network, or ctx ends.
func (a *Agent) awaitPublished(ctx context.Context, network string) error {
	path := endpointsPath(a.opt.Config.NodeName, network)
	kick(a.publishKick)
	for {
		a.mu.Lock()
		rev := a.ledger.Revision(path)
		set, wanted := a.setsLocked()[network]
		rec, _ := a.ledger.Get(path)
		done := !wanted || rev != 0 && a.synced[path] == rev && sameAs(set, func(s *overlay.EndpointSet) { s.Revision = 0 })(rec.Value)
		ch := a.published
		a.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return fmt.Errorf("consul does not have it yet, so other nodes do not know it; it is published when Consul answers")
		}
	}
}

// notifyPublished wakes those in awaitPublished.
func (a *Agent) notifyPublished() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.published)
	a.published = make(chan struct{})
}

// note sets or, with an empty message, clears a standing problem; it is logged when it changes.
func (a *Agent) note(subject, message string) {
	a.mu.Lock()
	before := a.notes[subject]
	if message == "" {
		delete(a.notes, subject)
	} else {
		a.notes[subject] = oneLine(message)
	}
	a.mu.Unlock()
	switch {
	case message != "" && stem(before) != stem(message):
		a.log.Warn("problem", "subject", subject, "problem", message)
	case message == "" && before != "":
		a.log.Info("problem is over", "subject", subject)
	}
}

// stem is the part of a message that does not change from one retry to the next.
func stem(s string) string { s, _, _ = strings.Cut(oneLine(s), ";"); return s }
