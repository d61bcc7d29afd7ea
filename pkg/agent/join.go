package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"weft/consul"
	"weft/pkg/config"
	"weft/pkg/ledger"
	"weft/pkg/overlay"
)

func consulConfig(cfg config.Config, log *slog.Logger) consul.Config {
	c := cfg.Consul
	return consul.Config{Address: c.Address, Token: c.Token.Reveal(), TokenFile: c.TokenFile, Datacenter: c.Datacenter,
		Prefix: c.Prefix, CatalogPrefix: c.CatalogPrefix, Log: log,
		TLS: consul.TLS{CAFile: c.TLS.CAFile, CAPath: c.TLS.CAPath, CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile,
			ServerName: c.TLS.ServerName, Insecure: c.TLS.InsecureSkipVerify}}
}

// join brings this node into the cluster, however long Consul takes: cluster id, VTEP address, node record, service.
// What is known from before is in use meanwhile.
func (a *Agent) join(ctx context.Context) error {
	if a.ledger != nil {
		a.mu.Lock()
		a.delivered["disk"] = true
		a.refresh()
		a.mu.Unlock()
		a.loop.Kick()
	}
	backoff := 100 * time.Millisecond
	for {
		err := a.joinOnce(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		a.note("consul", fmt.Sprintf("not joined: %v; retrying", err))
		if !wait(ctx, backoff/2+rand.N(backoff)) {
			return nil
		}
		backoff = min(backoff*2, 5*time.Second)
	}
	a.note("consul", "")
	a.mu.Lock()
	a.joined = true
	cluster, vtep := a.state.Cluster, a.state.VTEP
	a.mu.Unlock()
	a.log.Info("joined", "cluster", cluster, "node", a.opt.Config.NodeName, "vtep", vtep.String())
	a.loop.Kick()
	kick(a.publishKick)
	kick(a.watchKick)
	return nil
}

func (a *Agent) joinOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	a.mu.Lock()
	known := a.state.Cluster
	a.mu.Unlock()
	id, err := a.consul.RestoreCluster(ctx, known)
	if err != nil {
		return err
	}
	dc, err := a.consul.LocalDatacenter(ctx)
	if err != nil {
		return err
	}
	if err := a.setCluster(id, dc); err != nil {
		return err
	}
	if err := a.claimName(ctx); err != nil {
		return err
	}
	if err := a.leaseVTEP(ctx); err != nil {
		return err
	}
	return a.register(ctx)
}

func (a *Agent) setCluster(id, datacenter string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state.Cluster != "" && a.state.Cluster != id {
		return fmt.Errorf("consul holds cluster %s, but this node belongs to %s: point consul.address or consul.prefix at the right one, or run `weft leave --purge` to join the new one", id, a.state.Cluster)
	}
	a.state.Cluster, a.state.Datacenter = id, datacenter
	if a.ledger == nil {
		a.ledger = ledger.NewWith(id, a.policy)
	}
	a.ledger.Self(a.opt.Config.NodeName, a.identity.Public())
	a.refresh()
	return a.saveLocked()
}

// claimName refuses to go on under a name that another identity has, and learns the revision of an own record that
// this data_dir does not know.
func (a *Agent) claimName(ctx context.Context) error {
	path := nodePath(a.opt.Config.NodeName)
	p, err := a.consul.Get(ctx, path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	a.mu.Lock()
	_, mine := a.ledger.Get(path)
	a.mu.Unlock()
	var n overlay.Node
	owns, err := a.ownsName(ctx)
	if err != nil {
		return err
	}
	foreign := json.Unmarshal(p.Value, &n) == nil && n.Identity != a.identity.Public() && !mine && !owns
	if foreign && !a.givenFree(ctx, n) {
		return fmt.Errorf("node name %q belongs to another identity (%s): set another node_name, or free the name with `weft node rm %s` on another node",
			n.Name, n.Identity.Short(), n.Name)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil && foreign {
		return nil // the name was given free: learnOwn counts past the old records
	}
	_, err = a.ledger.Offer(path, p.Value)
	if _, mine := a.ledger.Get(path); mine || err == nil {
		return nil // what cannot be used there is written over with this node's next record
	}
	if a.policy.Locked {
		return nil // it is no admitted node's: this node's own goes over it
	}
	return fmt.Errorf("read this node's own record: %w", err)
}

// ownsName reports whether the name is this node's whatever stands under it in the store: it had the name before, or the
// cluster is locked and no signer has given it to another.
func (a *Agent) ownsName(ctx context.Context) (bool, error) {
	a.mu.Lock()
	owned := a.state.Owned
	a.mu.Unlock()
	if owned || !a.policy.Locked {
		return owned, nil
	}
	pairs, err := a.consul.List(ctx, trustDir)
	if err != nil {
		return false, err
	}
	a.offer(pairs)
	a.mu.Lock()
	defer a.mu.Unlock()
	ad, given := a.ledger.Trust().Admissions[a.opt.Config.NodeName]
	return !given || ad.Identity == a.identity.Public(), nil
}

// givenFree reports whether an operator removed the node that had this node's name. Whether the others believe the
// removal is theirs to decide; this only says whether it is worth trying.
func (a *Agent) givenFree(ctx context.Context, n overlay.Node) bool {
	p, err := a.consul.Get(ctx, removedPath(n.Name))
	if err != nil {
		return false
	}
	var r overlay.Removal
	if json.Unmarshal(p.Value, &r) != nil || r.Identity != n.Identity || r.NodeRevision < n.Revision {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	path := nodePath(n.Name)
	a.floors[path] = max(a.floors[path], min(r.NodeRevision, n.Revision+maxFloor))
	return true
}

type vtepLease struct {
	Node string `json:"node"`
}

// leaseVTEP makes sure that this node holds the lease of its VTEP address, or gets one: the first free address after
// the highest leased one, so that addresses are not reused soon.
func (a *Agent) leaseVTEP(ctx context.Context) error {
	a.mu.Lock()
	have := a.state.VTEP
	a.mu.Unlock()
	if have.IsValid() {
		err := a.holdVTEP(ctx, have)
		if !errors.Is(err, os.ErrExist) {
			return err
		}
		// It was freed while this node was away, and is another's now, legally.
		a.log.Warn("this node's VTEP address was given to another node, leasing a new one", "vtep", have.String(), "err", err)
	}
	pool := a.cfg.Load().VTEPPool
	for try := 0; try < 100; try++ {
		pairs, err := a.consul.List(ctx, consul.VTEPsDir)
		if err != nil {
			return err
		}
		addr, err := a.pickVTEP(pool, pairs)
		if err != nil {
			return err
		}
		err = a.holdVTEP(ctx, addr)
		if errors.Is(err, os.ErrExist) {
			continue // another node was faster
		}
		if err != nil {
			return err
		}
		a.mu.Lock()
		a.state.VTEP = addr
		err = a.saveLocked()
		a.mu.Unlock()
		return err
	}
	return fmt.Errorf("lease a VTEP address: other nodes were faster 100 times")
}

// pickVTEP returns this node's own lease if there is one, else the next free address of pool.
func (a *Agent) pickVTEP(pool netip.Prefix, pairs []consul.Pair) (netip.Addr, error) {
	taken := map[netip.Addr]bool{}
	last := pool.Masked().Addr() // the network address is never leased
	for _, p := range pairs {
		addr, err := consul.ParseVTEPPath(p.Path)
		if err != nil {
			continue
		}
		var l vtepLease
		if json.Unmarshal(p.Value, &l) == nil && l.Node == a.opt.Config.NodeName {
			return addr, nil
		}
		taken[addr] = true
		if pool.Contains(addr) && last.Less(addr) {
			last = addr
		}
	}
	if s := a.snap.Load(); s != nil {
		for _, n := range s.Nodes { // also those that left: an address that was used a short while ago is not used again soon
			if pool.Contains(n.VTEP) && last.Less(n.VTEP) && n.VTEP.Next().IsValid() && pool.Contains(n.VTEP.Next().Next()) {
				last = n.VTEP
			}
			taken[n.VTEP] = taken[n.VTEP] || n.Present() && n.Name != a.opt.Config.NodeName
		}
	}
	for _, start := range []netip.Addr{last, pool.Masked().Addr()} {
		for addr := start.Next(); pool.Contains(addr) && pool.Contains(addr.Next()); addr = addr.Next() {
			if !taken[addr] {
				return addr, nil
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("no free VTEP address in vtep_pool %s (%d leased): remove dead nodes with `weft node rm`, or use a larger pool", pool, len(taken))
}

// holdVTEP creates the lease of addr for this node, or finds that it is this node's already; os.ErrExist when it is not.
func (a *Agent) holdVTEP(ctx context.Context, addr netip.Addr) error {
	path := consul.VTEPPath(addr)
	value, err := json.MarshalIndent(vtepLease{Node: a.opt.Config.NodeName}, "", "  ")
	if err != nil {
		return err
	}
	err = a.consul.Txn(ctx, consul.CAS(path, value, 0))
	if !errors.Is(err, consul.ErrConflict) {
		return err
	}
	p, err := a.consul.Get(ctx, path)
	if err != nil {
		return err
	}
	var l vtepLease
	if err := json.Unmarshal(p.Value, &l); err != nil || l.Node != a.opt.Config.NodeName {
		return fmt.Errorf("VTEP address %s is leased to node %q: %w", addr, l.Node, os.ErrExist)
	}
	return nil
}
