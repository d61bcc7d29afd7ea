package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"weft/consul"
	"weft/pkg/api"
	"weft/pkg/ipam"
	"weft/pkg/overlay"
)

// freeLeases frees the address and VTEP leases of a node that has left, and returns how many.
func (a *Agent) freeLeases(ctx context.Context, node string) (int, error) {
	var ops []consul.Op
	for _, dir := range []string{"leases", consul.VTEPsDir} {
		pairs, err := a.consul.List(ctx, dir)
		if err != nil {
			return 0, err
		}
		for _, p := range pairs {
			var l struct {
				Node string `json:"node"`
			}
			if json.Unmarshal(p.Value, &l) == nil && l.Node == node {
				ops = append(ops, consul.DeleteCAS(p.Path, p.Version))
			}
		}
	}
	var errs []error
	freed := 0
	for _, op := range ops { // one by one: a lease that moved meanwhile is not this node's any more
		switch err := a.consul.Txn(ctx, op); {
		case err == nil:
			freed++
		case !errors.Is(err, consul.ErrConflict):
			errs = append(errs, err)
		}
	}
	return freed, errors.Join(errs...)
}

// Leave implements apiserver.System: the signed goodbye, then the data path is taken down and the agent ends.
func (a *Agent) Leave(ctx context.Context, spec api.LeaveSpec) error {
	a.mu.Lock()
	if a.leaving || a.goodbye {
		a.mu.Unlock()
		return apiErr(api.Conflict, "this node is leaving already")
	}
	var names []string
	for _, e := range a.state.Endpoints {
		names = append(names, e.Name)
	}
	if len(names) > 0 && !spec.Force {
		a.mu.Unlock()
		slices.Sort(names)
		return apiErr(api.Conflict, "this node has %d endpoints (%s): detach them first, or pass --force", len(names), strings.Join(names[:min(5, len(names))], ", "))
	}
	a.leftAt, a.purge = time.Now().UTC().Truncate(time.Second), spec.Purge
	a.goodbye = true
	joined := a.joined
	a.mu.Unlock()
	a.log.Info("leaving", "purge", spec.Purge)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), passWait)
	defer cancel()
	if err := a.takeAllDown(ctx, joined); err != nil {
		a.mu.Lock()
		a.leaving, a.purge = false, false
		a.mu.Unlock()
		a.loop.Kick()
		kick(a.publishKick)
		return apiErr(api.Unavailable, "leave not completed, this node stays: %s", oneLine(err.Error()))
	}
	a.mu.Lock()
	a.state.Endpoints, a.state.Pools = map[overlay.EndpointID]overlay.LocalEndpoint{}, map[string]ipam.PoolState{}
	for name, p := range a.pools {
		close(p.stop)
		delete(a.pools, name)
	}
	a.state.VTEP, a.joined = netip.Addr{}, false
	if err := a.saveLocked(); err != nil { // before the leases are anybody's
		a.log.Error("state not kept", "err", err)
	}
	a.mu.Unlock()
	if joined {
		if _, err := a.freeLeases(ctx, a.opt.Config.NodeName); err != nil {
			a.log.Warn("leases of this node are not all freed: another node frees them with `weft node rm`", "err", err)
		}
		if err := a.consul.DeregisterAgent(ctx, a.opt.Config.NodeName); err != nil && !errors.Is(err, os.ErrNotExist) {
			a.log.Warn("service not deregistered", "err", err)
		}
	}
	close(a.left)
	return nil
}

// takeAllDown says goodbye and then takes the data path down: not the other way round, since a node that the others still
// count on must keep working.
func (a *Agent) takeAllDown(ctx context.Context, joined bool) error {
	defer func() {
		a.mu.Lock()
		a.goodbye = false
		a.mu.Unlock()
	}()
	if joined {
		if err := a.publish(ctx); err != nil {
			return fmt.Errorf("the goodbye is not in Consul: %w", err)
		}
	}
	a.mu.Lock()
	a.leaving = true
	a.mu.Unlock()
	a.names.closeAll()
	r, err := a.loop.Do(ctx)
	errs := []error{err, r.Err}
	for _, f := range r.Failed {
		errs = append(errs, f)
	}
	return errors.Join(errs...)
}
