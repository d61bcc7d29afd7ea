package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"weft/consul"
	"weft/pkg/ledger"
)

// Consul may lose what it held (wiped) or go back in time (restored from an old backup). The data path does not notice:
// what was accepted stays. This file puts back what is missing. Everything that any node may write again is signed by
// whoever wrote it first; each node asserts its own leases and records.

// rollbackHold is how long nothing new is leased after Consul went back in time, wall time: the other nodes need a
// moment to assert what they have.
const rollbackHold = 3 * time.Second

// watchCluster follows the sentinel, which is made again with the id that every signature names.
func (a *Agent) watchCluster(ctx context.Context) error {
	failed := func(err error) {
		switch {
		case err == nil:
			a.note("consul", "")
			kick(a.assertKick)
		case errors.Is(err, consul.ErrUnreadable):
			a.note("consul", fmt.Sprintf("what it holds cannot be used: %v; the data path is kept as it was", err))
			a.restore(ctx)
		default:
			a.note("consul", fmt.Sprintf("not reachable: %v; the data path is kept as it was", err))
		}
	}
	return a.consul.WatchCluster(ctx, failed, func() {
		a.log.Warn("Consul was wiped: another node has written the cluster record again")
		a.rolledBack()
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
	a.log.Warn("Consul was wiped: cluster record written again", "cluster", id)
	a.rolledBack()
}

// rolledBack follows a sign that Consul went back in time: this node asserts what it has, and leases nothing new for a
// moment.
func (a *Agent) rolledBack() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rolledBackLocked()
}

func (a *Agent) rolledBackLocked() {
	a.holdUntil = time.Now().Add(rollbackHold)
	kick(a.assertKick)
}

// awaitHold waits until new addresses may be leased.
func (a *Agent) awaitHold(ctx context.Context) error {
	a.mu.Lock()
	d := time.Until(a.holdUntil)
	a.mu.Unlock()
	if d > 0 && !wait(ctx, d) {
		return ctx.Err()
	}
	return nil
}

// assertLoop asserts what this node has whenever there is reason to think that Consul lost it.
func (a *Agent) assertLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.assertKick:
		}
		if err := a.assert(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("not everything of this node is in Consul again, will retry", "err", err)
			kick(a.assertKick)
		}
		if !wait(ctx, time.Second) { // signs come in bursts
			return nil
		}
	}
}

// assert writes again what Consul should hold of this node: its VTEP lease, address leases and records, and the records
// of networks, which any node may put back as they were signed.
func (a *Agent) assert(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := a.consul.Acknowledge(ctx); err != nil {
		return err
	}
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
	kick(a.publishKick)
	return errors.Join(errs...)
}

// putBack replaces what is older than the accepted records, as after Consul was restored from an old backup: the newer
// ones are signed, so any node may write them.
func (a *Agent) putBack(ctx context.Context, older []consul.Pair) {
	for _, p := range older {
		a.mu.Lock()
		r, ok := a.ledger.Get(p.Path)
		a.mu.Unlock()
		if !ok || ledger.Owner(p.Path) != "" {
			continue // an owner puts its own records back
		}
		switch err := a.consul.Txn(ctx, consul.CAS(p.Path, r.Value, p.Version)); {
		case err == nil:
			a.log.Warn("Consul held an older revision of a record: the newer one is written again", "path", p.Path, "revision", r.Revision)
		case !errors.Is(err, consul.ErrConflict) && ctx.Err() == nil:
			a.log.Warn("older record not replaced", "path", p.Path, "err", err)
		}
	}
}

// restoreVanished puts back accepted networks that are no longer in Consul although nobody deleted them: deleting is a
// signed record of its own. The data path never noticed.
func (a *Agent) restoreVanished(ctx context.Context, pairs []consul.Pair) {
	there := map[string]bool{}
	for _, p := range pairs {
		there[p.Path] = true
	}
	back := false
	for name := range a.snap.Load().Networks {
		a.mu.Lock()
		r, ok := a.ledger.Get(networkPath(name))
		a.mu.Unlock()
		if !ok || there[r.Path] {
			continue
		}
		back = true
		switch err := a.consul.Txn(ctx, consul.CAS(r.Path, r.Value, 0)); {
		case err == nil:
			a.log.Warn("network record vanished from Consul without a deletion: written again; to delete it use `weft network rm`", "network", name)
		case !errors.Is(err, consul.ErrConflict) && ctx.Err() == nil:
			a.log.Warn("network record vanished from Consul and could not be written again", "network", name, "err", err)
		}
	}
	if back {
		a.rolledBack()
	}
}

// The clocks of recheck, wall time.
const (
	indexEvery = 5 * time.Second
	ownEvery   = time.Minute
)

// recheck looks for what no watch tells: that Consul's index went back, as after a snapshot was restored, and that an own
// record was changed without its revision.
func (a *Agent) recheck(ctx context.Context) error {
	var last uint64
	checked := time.Now()
	for wait(ctx, indexEvery) {
		a.mu.Lock()
		joined := a.joined
		a.mu.Unlock()
		if !joined {
			continue
		}
		index, err := a.consul.KVIndex(ctx)
		if err != nil {
			continue // the watches tell of that
		}
		if index < last {
			a.log.Warn("Consul's index went back: a snapshot was restored", "from", last, "to", index)
			a.rolledBack()
		}
		last = index
		if time.Since(checked) >= ownEvery {
			checked = time.Now()
			a.recheckOwn(ctx)
		}
	}
	return nil
}

// recheckOwn publishes own records again that do not stand in Consul as they were accepted.
func (a *Agent) recheckOwn(ctx context.Context) {
	node := a.opt.Config.NodeName
	pairs, err := a.consul.List(ctx, consul.EndpointsDir(node))
	if err != nil {
		return // the watches tell of that
	}
	own, err := a.consul.Get(ctx, nodePath(node))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return
	}
	there := map[string][]byte{own.Path: own.Value}
	for _, p := range pairs {
		there[p.Path] = p.Value
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.ownRecordsLocked() {
		if rec, ok := a.ledger.Get(r.path); ok && a.synced[r.path] == rec.Revision && !bytes.Equal(there[r.path], rec.Value) {
			a.log.Warn("an own record in Consul is not what this node wrote: written again", "path", r.path)
			delete(a.synced, r.path)
			kick(a.publishKick)
		}
	}
}

// watchFirewall makes a pass when the host's firewall changes: whoever flushes the ruleset takes the fences with it.
func (a *Agent) watchFirewall(ctx context.Context) error {
	return a.kernel.WatchFirewall(ctx, a.loop.Kick)
}
