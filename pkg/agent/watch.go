package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/consul"
	"weft/keys/store"
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
			g.Go(func() error { return a.watchRecords(ctx, trustDir) })
			g.Go(func() error { return a.watchNodes(ctx) })
			g.Go(func() error { return a.watchRecords(ctx, consul.KEMDir(a.opt.Config.NodeName)) })
			g.Go(func() error { return a.watchRecall(ctx) })
			g.Go(func() error { return a.watchCluster(ctx) })
		}
		a.syncNetWatches(ctx, g)
	}
}

// followWhile keeps a network's watch while an attach to it goes on; call what it returns when that is over.
func (a *Agent) followWhile(network string) (done func()) {
	count := func(n int) {
		a.mu.Lock()
		if a.following[network] += n; a.following[network] == 0 {
			delete(a.following, network)
		}
		a.mu.Unlock()
		kick(a.watchKick)
	}
	count(1)
	return func() { count(-1) }
}

func (a *Agent) syncNetWatches(ctx context.Context, g *errgroup.Group) {
	a.mu.Lock()
	defer a.mu.Unlock()
	need := a.followedLocked()
	for name, n := range a.following {
		need[name] = need[name] || n > 0
	}
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
		older := a.offer(pairs)
		a.deliver(dir)
		a.putBack(ctx, older)
		if dir == trustDir {
			a.restoreTrust(ctx, pairs)
		}
		if dir == consul.NetworksDir {
			a.restoreVanished(ctx, pairs)
			a.adoptPools()
			a.retirePools(ctx)
			a.forgetNetworks(ctx)
		}
	})
}

// watchNodes follows the revisions of node records and reads those that moved.
func (a *Agent) watchNodes(ctx context.Context) error {
	own := nodePath(a.opt.Config.NodeName)
	return a.consul.Watch(ctx, consul.NodeRevsDir, func(pairs []consul.Pair) {
		moved := revisions(pairs, consul.NodeRevsDir, nodePath)
		if a.fetch(ctx, moved) {
			a.confirmOwn(own, moved[own])
			a.deliver("nodes")
		}
	})
}

// revisions maps the record that each pair of a revision folder is about, path(node), to its revision, 0 for a value
// that is none.
func revisions(pairs []consul.Pair, dir string, path func(node string) string) map[string]uint64 {
	out := make(map[string]uint64, len(pairs))
	for _, p := range pairs {
		out[path(strings.TrimPrefix(p.Path, dir+"/"))] = parseRevision(p.Value)
	}
	return out
}

// watchEndpoints follows the revisions of the endpoint records of one network and reads those that moved.
func (a *Agent) watchEndpoints(ctx context.Context, network string, w *netWatch) error {
	first := true
	dir, own := consul.RevsDir(network), endpointsPath(a.opt.Config.NodeName, network)
	return a.consul.Watch(ctx, dir, func(pairs []consul.Pair) {
		moved := revisions(pairs, dir, func(node string) string { return endpointsPath(node, network) })
		if !a.fetch(ctx, moved) {
			return
		}
		a.confirmOwn(own, moved[own])
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

const (
	// fetchBatch is how many records are read before they are put to use.
	fetchBatch = 64
	// fetchUnknown bounds how many records of nodes that were never accepted are read at one go: a cluster may start with
	// hundreds, and somebody may write thousands.
	fetchUnknown = 512
)

// worthReading lists the records whose revision is above the accepted one and that were not refused at that revision,
// those of known nodes first.
func (a *Agent) worthReading(moved map[string]uint64) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var known, unknown []string
	for path, rev := range moved {
		switch have := a.ledger.Revision(path); {
		case rev <= have || a.readAt[path] == rev:
		case have > 0:
			known = append(known, path)
		default:
			unknown = append(unknown, path)
		}
	}
	slices.Sort(known)
	slices.Sort(unknown)
	return append(known, unknown[:min(len(unknown), fetchUnknown)]...)
}

// seenRev notes that a record was read at a revision, so that a refused one is not read again and again.
func (a *Agent) seenRev(path string, rev uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.readAt) > 4*fetchUnknown {
		clear(a.readAt)
	}
	a.readAt[path] = rev
}

// fetch reads the records whose revision is above the accepted one, until all are read or ctx ends (then false). A
// record that is refused or absent is no reason to wait: it stays as it was.
func (a *Agent) fetch(ctx context.Context, moved map[string]uint64) bool {
	backoff := 50 * time.Millisecond
	for {
		var pairs []consul.Pair
		again := false
		for _, path := range a.worthReading(moved) {
			rev := moved[path]
			switch p, err := a.consul.Get(ctx, path); {
			case err == nil:
				a.seenRev(path, rev)
				if pairs = append(pairs, p); len(pairs) >= fetchBatch { // what is good should not wait for what is not
					a.offer(pairs)
					pairs = nil
				}
			case errors.Is(err, os.ErrNotExist):
				a.seenRev(path, rev)
				a.log.Debug("a revision without its record is ignored", "path", path, "revision", rev)
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

// maxWarned is how many refused records of one reading are logged one by one.
const maxWarned = 10

// offer puts records before the ledger and, if it accepted one, wakes what depends on it. It returns the pairs that are
// older than what was accepted before.
func (a *Agent) offer(pairs []consul.Pair) (older []consul.Pair) {
	a.mu.Lock()
	defer a.mu.Unlock()
	any := false
	a.ledger.At(time.Now())
	warned := 0
	for _, p := range pairs {
		before := a.ledger.Why(p.Path)
		changed, err := a.ledger.Offer(p.Path, p.Value)
		any = any || changed
		if errors.Is(err, ledger.ErrOlder) && !errors.Is(err, ledger.ErrEqual) {
			older = append(older, p)
		}
		if err != nil && err.Error() != before && !errors.Is(err, ledger.ErrOlder) {
			if warned++; warned <= maxWarned {
				a.log.Warn("record refused", "path", p.Path, "err", err)
			}
		}
	}
	if warned > maxWarned {
		a.log.Warn("more records refused", "count", warned-maxWarned)
	}
	if any {
		a.changedLocked()
	}
	return older
}

// changedLocked follows a change of the ledger: it is used at once, and on disk soon after (saveLedgers). What this node
// signed is on disk before anybody sees it (publish).
func (a *Agent) changedLocked() {
	a.unsaved = true
	kick(a.ledgerKick)
	a.refresh()
	a.loop.Kick()
	kick(a.publishKick)
	kick(a.pairKick)
	kick(a.rotateKick)
	kick(a.trustKick)
	kick(a.claimKick)
}

// saveLedgers keeps the accepted records on disk, outside the lock: what waits for a record waits for no disk.
func (a *Agent) saveLedgers(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.ledgerKick:
		}
		if err := a.keepLedger(); err != nil {
			a.log.Error("accepted records are not kept over a restart", "err", err)
		}
	}
}

// keepLedger writes the accepted records to disk if they are not there yet.
func (a *Agent) keepLedger() error {
	a.savingLedger.Lock()
	defer a.savingLedger.Unlock()
	a.mu.Lock()
	if !a.unsaved || a.ledger == nil {
		a.mu.Unlock()
		return nil
	}
	data, err := json.Marshal(a.ledger)
	a.unsaved = false
	a.mu.Unlock()
	if err == nil {
		err = store.WriteFile(ledgerPath(a.opt.Config.DataDir), data, 0o600)
	}
	if err != nil {
		a.mu.Lock()
		a.unsaved = true
		a.mu.Unlock()
		return fmt.Errorf("write accepted records: %w", err)
	}
	return nil
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
	was, known := a.synced[path]
	a.synced[path] = rev
	if rev != a.ledger.Revision(path) {
		kick(a.publishKick)
	}
	if known && rev < was { // only this node writes there, and it only counts up
		a.rolledBackLocked()
	}
}

// watchRecall gives unused spare addresses back when another node asks for them.
func (a *Agent) watchRecall(ctx context.Context) error {
	return a.consul.Watch(ctx, consul.RecallDir, func(pairs []consul.Pair) {
		for _, p := range pairs {
			a.mu.Lock()
			pl := a.pools[strings.TrimPrefix(p.Path, consul.RecallDir+"/")]
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
