package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/consul"
	"weft/pkg/ledger"
)

// netWatch follows the endpoint records of one network.
type netWatch struct {
	cancel context.CancelFunc
	ready  chan struct{} // closed when the records were read once
	known  bool          // they were; guarded by Agent.mu
}

// manageWatches starts the watches of the cluster once the node has joined, then keeps one watch for each network that
// this node has endpoints on.
func (a *Agent) manageWatches(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	started := false
	for {
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-a.watchKick:
		case <-time.After(followFor / 10): // networks that only the host asked about are left again
		}
		a.mu.Lock()
		joined := a.joined
		a.mu.Unlock()
		if !joined {
			continue
		}
		if !started {
			started = true
			g.Go(func() error { return a.watchRecords(ctx, "networks") })
			g.Go(func() error { return a.watchRecords(ctx, "removed") })
			g.Go(func() error { return a.watchNodes(ctx) })
			g.Go(func() error { return a.watchRecall(ctx) })
			g.Go(func() error { return a.watchCluster(ctx) })
		}
		a.syncNetWatches(ctx, g)
	}
}

func (a *Agent) syncNetWatches(ctx context.Context, g *errgroup.Group) {
	a.mu.Lock()
	defer a.mu.Unlock()
	need := a.followedLocked()
	for name, w := range a.watches {
		if !need[name] {
			w.cancel()
			delete(a.watches, name)
			a.refresh()
		}
	}
	for name := range need {
		if a.watches[name] != nil {
			continue
		}
		wctx, cancel := context.WithCancel(ctx)
		w := &netWatch{cancel: cancel, ready: make(chan struct{})}
		a.watches[name] = w
		g.Go(func() error { return a.watchEndpoints(wctx, name, w) })
	}
}

// watchRecords follows a directory whose values are records themselves.
func (a *Agent) watchRecords(ctx context.Context, dir string) error {
	return a.consul.Watch(ctx, dir, func(pairs []consul.Pair) {
		a.offer(pairs)
		a.deliver(dir)
		a.noteVanished(dir, pairs)
	})
}

// watchNodes follows the revisions of node records and reads those that moved.
func (a *Agent) watchNodes(ctx context.Context) error {
	return a.consul.Watch(ctx, "revs/nodes", func(pairs []consul.Pair) {
		self := a.opt.Config.NodeName
		own := uint64(0)
		moved := map[string]uint64{}
		for _, p := range pairs {
			node := strings.TrimPrefix(p.Path, "revs/nodes/")
			if rev, err := strconv.ParseUint(string(p.Value), 10, 64); err == nil {
				moved[nodePath(node)] = rev
				if node == self {
					own = rev
				}
			}
		}
		if a.fetch(ctx, moved) {
			a.confirmOwn(nodePath(self), own)
			a.deliver("nodes")
		}
	})
}

// watchEndpoints follows the revisions of the endpoint records of one network and reads those that moved.
func (a *Agent) watchEndpoints(ctx context.Context, network string, w *netWatch) error {
	first := true
	return a.consul.Watch(ctx, "revs/"+network, func(pairs []consul.Pair) {
		moved := map[string]uint64{}
		own := uint64(0)
		for _, p := range pairs {
			node := strings.TrimPrefix(p.Path, "revs/"+network+"/")
			if rev, err := strconv.ParseUint(string(p.Value), 10, 64); err == nil {
				moved[endpointsPath(node, network)] = rev
				if node == a.opt.Config.NodeName {
					own = rev
				}
			}
		}
		if !a.fetch(ctx, moved) {
			return
		}
		a.confirmOwn(endpointsPath(a.opt.Config.NodeName, network), own)
		if first {
			first = false
			a.mu.Lock()
			w.known = true
			a.refresh()
			a.mu.Unlock()
			close(w.ready)
		}
	})
}

// fetch reads the records whose revision is above the accepted one, until all are read or ctx ends (then false). A
// record that is refused or absent is no reason to wait: it stays as it was.
func (a *Agent) fetch(ctx context.Context, moved map[string]uint64) bool {
	backoff := 50 * time.Millisecond
	for {
		var pairs []consul.Pair
		again := false
		for path, rev := range moved {
			a.mu.Lock()
			have := a.ledger.Revision(path)
			a.mu.Unlock()
			if rev <= have {
				continue
			}
			switch p, err := a.consul.Get(ctx, path); {
			case err == nil:
				pairs = append(pairs, p)
			case errors.Is(err, os.ErrNotExist):
				a.log.Warn("a revision without its record is ignored", "path", path, "revision", rev)
			default:
				again = true
			}
		}
		a.offer(pairs)
		if !again {
			return true
		}
		if !wait(ctx, backoff/2+rand.N(backoff)) {
			return false
		}
		backoff = min(backoff*2, 5*time.Second)
	}
}

// offer puts records before the ledger and, if it accepted one, wakes what depends on it.
func (a *Agent) offer(pairs []consul.Pair) {
	a.mu.Lock()
	defer a.mu.Unlock()
	any := false
	for _, p := range pairs {
		before := a.ledger.Rejected()[p.Path]
		changed, err := a.ledger.Offer(p.Path, p.Value)
		any = any || changed
		if err != nil && err.Error() != before && !errors.Is(err, ledger.ErrOlder) {
			a.log.Warn("record refused", "path", p.Path, "err", err)
		}
	}
	if any {
		a.changedLocked()
	}
}

// changedLocked follows a change of the ledger: the new snapshot is kept on disk, then used.
func (a *Agent) changedLocked() {
	if err := saveLedger(a.opt.Config.DataDir, a.ledger); err != nil {
		a.log.Error("accepted records are not kept over a restart", "err", err)
	}
	a.refresh()
	a.loop.Kick()
	kick(a.publishKick)
}

func (a *Agent) deliver(source string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.delivered[source] {
		return
	}
	a.delivered[source] = true
	a.refresh()
	a.loop.Kick()
}

// confirmOwn notes which revision of an own record Consul holds; another than ours is published again.
func (a *Agent) confirmOwn(path string, rev uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.synced[path] = rev
	if rev != a.ledger.Revision(path) {
		kick(a.publishKick)
	}
}

// noteVanished tells of accepted networks that are no longer in Consul without having been deleted: they are kept.
func (a *Agent) noteVanished(dir string, pairs []consul.Pair) {
	if dir != "networks" {
		return
	}
	there := map[string]bool{}
	for _, p := range pairs {
		there[strings.TrimPrefix(p.Path, "networks/")] = true
	}
	var gone []string
	for name, n := range a.snap.Load().Networks {
		if n.Alive() && !there[name] {
			gone = append(gone, name)
		}
	}
	msg := ""
	if len(gone) > 0 {
		msg = fmt.Sprintf("network record %s vanished from Consul without a deletion: the data path is kept as it was; restore Consul from a backup", strings.Join(gone, ", "))
	}
	a.note("networks", msg)
}

// watchCluster follows the sentinel. When Consul was wiped it is made again with the id that every signature names, and
// this node's leases and records are written again; the data path stays as it was meanwhile.
func (a *Agent) watchCluster(ctx context.Context) error {
	return a.consul.WatchCluster(ctx, func(err error) {
		switch {
		case err == nil:
			a.note("consul", "")
			a.reassert(ctx)
		case errors.Is(err, consul.ErrUnreadable):
			a.note("consul", fmt.Sprintf("what it holds cannot be used: %v; the data path is kept as it was", err))
			a.restore(ctx)
		default:
			a.note("consul", fmt.Sprintf("not reachable: %v; the data path is kept as it was", err))
		}
	})
}

// restore makes the sentinel again; what is refused, as another cluster's sentinel, stays for a person.
func (a *Agent) restore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	a.mu.Lock()
	id := a.state.Cluster
	a.mu.Unlock()
	if _, err := a.consul.RestoreCluster(ctx, id); err != nil {
		a.log.Debug("sentinel not restored", "err", err)
		return
	}
	a.log.Warn("Consul was wiped or restored: cluster record written again", "cluster", id)
	a.reassert(ctx)
}

// reassert writes again what Consul should hold of this node: its VTEP lease, address leases and records, and the
// records of networks, which any node may put back as they were signed.
func (a *Agent) reassert(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	a.mu.Lock()
	vtep := a.state.VTEP
	pools := slices.Collect(maps.Values(a.pools))
	records := a.ledger.Shared()
	clear(a.synced)
	a.mu.Unlock()
	var errs []error
	if vtep.IsValid() {
		errs = append(errs, a.holdVTEP(ctx, vtep))
	}
	for _, p := range pools {
		errs = append(errs, p.Reassert(ctx))
	}
	for _, r := range records {
		if err := a.consul.Txn(ctx, consul.CAS(r.Path, r.Value, 0)); !errors.Is(err, consul.ErrConflict) {
			errs = append(errs, err)
		}
	}
	for _, n := range a.snap.Load().Networks {
		errs = append(errs, a.holdVNI(ctx, n))
	}
	if err := errors.Join(errs...); err != nil && ctx.Err() == nil {
		a.log.Warn("not everything of this node is in Consul again", "err", err)
	}
	kick(a.publishKick)
}

// watchRecall gives unused spare addresses back when another node asks for them.
func (a *Agent) watchRecall(ctx context.Context) error {
	return a.consul.Watch(ctx, "recall", func(pairs []consul.Pair) {
		for _, p := range pairs {
			a.mu.Lock()
			pl := a.pools[strings.TrimPrefix(p.Path, "recall/")]
			a.mu.Unlock()
			if pl == nil || pl.recalled.Swap(p.Version) == p.Version {
				continue
			}
			if err := pl.GiveBack(ctx); err != nil {
				a.log.Warn("spare addresses not given back", "network", pl.network.Name, "err", err)
			}
		}
	})
}
