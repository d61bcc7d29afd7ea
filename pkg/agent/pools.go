package agent

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"weft/consul"
	"weft/pkg/ipam"
	"weft/pkg/overlay"
)

// pool is this node's share of one network's addresses.
type pool struct {
	*ipam.Pool
	network  overlay.Network
	stop     chan struct{} // closed when the network is gone
	recalled atomic.Uint64 // version of the last recall answered
}

// Run keeps the pool until its network is gone or ctx ends.
func (p *pool) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with ctx
		select {
		case <-p.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return p.Pool.Run(ctx)
}

// poolFor returns the pool of a network, making it when it is the first use.
func (a *Agent) poolFor(n overlay.Network) (*pool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.pools[n.Name]; p != nil && p.network.ID == n.ID {
		return p, nil
	}
	if a.poolRun == nil {
		return nil, errors.New("the agent is not running")
	}
	if old := a.pools[n.Name]; old != nil {
		close(old.stop) // of a network of this name that was deleted
	}
	p := a.newPoolLocked(n)
	a.pools[n.Name] = p
	a.poolRun(p)
	return p, nil
}

func (a *Agent) newPoolLocked(n overlay.Network) *pool {
	cfg := ipam.PoolConfig{Network: n, Node: a.opt.Config.NodeName, Store: a.consul.Leases(), Quarantine: a.cfg.Load().IPAM.Quarantine,
		Log:     a.log,
		InUse:   func(addr netip.Addr) bool { return a.claimed(n.ID, addr) },
		Changed: func() { kick(a.saveKick) },
		Save:    a.save,
		Initial: a.state.Pools[n.Name],
		Nodes:   func() int { return a.nodesOn(n.ID) },
		Recall:  func(ctx context.Context) error { return a.consul.Recall(ctx, n.Name, a.opt.Config.NodeName) }}
	p := &pool{Pool: ipam.NewPool(cfg), network: n, stop: make(chan struct{})}
	own := map[overlay.EndpointID]netip.Addr{}
	for id, e := range a.state.Endpoints {
		if e.NetworkID == n.ID {
			own[id] = e.Address
		}
	}
	p.Adopt(own)
	return p
}

// claimed reports whether another node's endpoint record holds an address: evidence of use when its lease is lost.
func (a *Agent) claimed(id overlay.NetworkID, addr netip.Addr) bool {
	s := a.snap.Load()
	if s == nil {
		return false
	}
	for _, set := range s.On(id) {
		if set.Node == a.opt.Config.NodeName {
			continue
		}
		for _, e := range set.Endpoints {
			if e.Address == addr {
				return true
			}
		}
	}
	return false
}

// nodesOn counts the nodes that share a network's addresses, this one included.
func (a *Agent) nodesOn(id overlay.NetworkID) int {
	s := a.snap.Load()
	if s == nil {
		return 1
	}
	n := 1
	for _, set := range s.On(id) {
		if set.Node != a.opt.Config.NodeName {
			n++
		}
	}
	return n
}

// adoptPools makes the pools of the networks that endpoints or kept leases of this node belong to.
func (a *Agent) adoptPools() {
	s := a.snap.Load()
	if s == nil {
		return
	}
	need := map[overlay.NetworkID]bool{}
	a.mu.Lock()
	for _, e := range a.state.Endpoints {
		need[e.NetworkID] = true
	}
	for _, f := range a.state.Pools {
		need[f.NetworkID] = true
	}
	a.mu.Unlock()
	for id := range need {
		if n, ok := s.NetworkByID(id); ok {
			if _, err := a.poolFor(n); err != nil {
				a.log.Error("addresses of a network are not managed", "network", n.Name, "err", err)
			}
		}
	}
}

// saveLocked writes the local state, with what the pools know.
func (a *Agent) saveLocked() error {
	for name, p := range a.pools {
		a.state.Pools[name] = p.Export()
	}
	return a.state.save(a.opt.Config.DataDir)
}

// dropPool ends the pool of a deleted network.
func (a *Agent) dropPool(name string, id overlay.NetworkID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.pools[name]; p != nil && p.network.ID == id {
		close(p.stop)
		delete(a.pools, name)
		delete(a.state.Pools, name)
	}
}

// save makes the local state durable.
func (a *Agent) save() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.saveLocked()
}

// poolOf returns the pool that an endpoint's address is from, nil when there is none any more.
func (a *Agent) poolOf(e overlay.LocalEndpoint) *pool {
	a.mu.Lock()
	p := a.pools[e.Network]
	a.mu.Unlock()
	if p != nil && p.network.ID == e.NetworkID {
		return p
	}
	if n, err := a.network(e.Network); err == nil && n.ID == e.NetworkID {
		if p, err := a.poolFor(n); err == nil {
			return p
		}
	}
	return nil
}

// saveChanges keeps the state file in step with what the pools learn by themselves.
func (a *Agent) saveChanges(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.saveKick:
		}
		if !wait(ctx, 200*time.Millisecond) { // changes come in bursts, most of them in attaches, which save by themselves
			return nil
		}
		if err := a.save(); err != nil {
			a.log.Error("state not kept", "err", err)
		}
	}
}

// retirePools ends the pools of networks that were deleted, and frees this node's leases there.
func (a *Agent) retirePools(ctx context.Context) {
	s := a.snap.Load()
	a.mu.Lock()
	dead := map[string]overlay.NetworkID{}
	for name, p := range a.pools {
		if n, known := s.Networks[name]; known && (!n.Alive() || n.ID != p.network.ID) {
			dead[name] = p.network.ID
		}
	}
	a.mu.Unlock()
	for name, id := range dead {
		a.dropPool(name, id)
		if _, err := ipam.Free(ctx, a.consul.Leases(), name, id, a.opt.Config.NodeName); err != nil && ctx.Err() == nil {
			a.log.Warn("leases of a deleted network not freed", "network", name, "err", err)
		}
	}
}

// forgetNetworks drops what this node kept for networks that were deleted and that it has no endpoint on: egress leg,
// router address, and the empty endpoint record in Consul.
func (a *Agent) forgetNetworks(ctx context.Context) {
	s := a.snap.Load()
	if !s.Complete {
		return
	}
	a.mu.Lock()
	used := map[overlay.NetworkID]bool{}
	for _, e := range a.state.Endpoints {
		used[e.NetworkID] = true
	}
	for _, n := range s.Networks {
		used[n.ID] = used[n.ID] || n.Alive()
	}
	maps.DeleteFunc(a.state.Routers, func(id overlay.NetworkID, _ overlay.MAC) bool { return !used[id] })
	maps.DeleteFunc(a.state.Legs, func(id overlay.NetworkID, _ int) bool { return !used[id] })
	var gone []string
	for name := range a.state.Published {
		if n, ok := s.Networks[name]; ok && !n.Alive() && !slices.ContainsFunc(slices.Collect(maps.Values(a.state.Endpoints)),
			func(e overlay.LocalEndpoint) bool { return e.Network == name }) {
			gone = append(gone, name)
			delete(a.state.Published, name)
		}
	}
	a.mu.Unlock()
	node := a.opt.Config.NodeName
	for _, name := range gone {
		err := a.consul.Txn(ctx, consul.Delete(endpointsPath(node, name)), consul.Delete(consul.RevPath(name, node)))
		if err != nil && ctx.Err() == nil {
			a.log.Warn("empty endpoint record of a deleted network stays in Consul", "network", name, "err", err)
		}
	}
}
