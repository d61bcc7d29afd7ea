package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/consul"
	"weft/dns"
	"weft/keys"
	"weft/pkg/api"
	"weft/pkg/ledger"
	"weft/pkg/overlay"
	"weft/pkg/plan"
)

// CreateNetwork implements apiserver.Networks.
func (a *Agent) CreateNetwork(ctx context.Context, spec api.NetworkSpec) (api.Network, error) {
	n, err := checkSpec(spec)
	if err != nil {
		return api.Network{}, err
	}
	if err := overlay.ValidateLabels(spec.Labels); err != nil {
		return api.Network{}, apiErr(api.Invalid, "%v", err)
	}
	a.mu.Lock()
	joined := a.joined
	a.mu.Unlock()
	if !joined {
		return api.Network{}, apiErr(api.Unavailable, "a network needs Consul, and this node has not joined yet: see `weft status`")
	}
	// The VNI is the next after the highest: who decides from the same state takes the same number, and one of them
	// loses the transaction and decides again, about the subnet as well.
	for try := 0; try < 20; try++ {
		done, err := a.tryCreate(ctx, spec, n)
		if errors.Is(err, consul.ErrConflict) {
			continue
		}
		if err != nil {
			return api.Network{}, consulErr(err)
		}
		a.log.Info("network created", "network", done.Name, "id", string(done.ID), "vni", uint32(done.VNI), "encrypted", done.Encrypted)
		return a.describe(a.snap.Load(), done), nil
	}
	return api.Network{}, apiErr(api.Conflict, "other networks were made at the same time, 20 times: try again")
}

// checkSpec checks what can be checked without the cluster.
func checkSpec(spec api.NetworkSpec) (n overlay.Network, err error) {
	invalid := func(err error) (overlay.Network, error) { return n, apiErr(api.Invalid, "%v", err) }
	if err := overlay.ValidateName(overlay.NetworkName, spec.Name); err != nil {
		return invalid(err)
	}
	if err := dns.CheckLabels(spec.Labels); err != nil {
		return invalid(err)
	}
	n = overlay.Network{Name: overlay.CanonicalName(spec.Name), Encrypted: spec.Encrypted, Internal: spec.Internal,
		MTU: spec.MTU, AllowOverlap: spec.AllowOverlap, Labels: spec.Labels}
	if spec.Subnet != "" {
		subnet, err := overlay.ParseSubnet(spec.Subnet)
		if err != nil {
			return invalid(err)
		}
		n.Subnets = []netip.Prefix{subnet}
		if n, err = placeIn(n, spec, subnet); err != nil {
			return invalid(err)
		}
	} else if spec.Gateway != "" || spec.IPRange != "" {
		return invalid(errors.New("--gateway and --ip-range need --subnet: give the subnet they lie in"))
	}
	if spec.MTU != 0 && (spec.MTU < 576 || spec.MTU > 65535-130) {
		return invalid(fmt.Errorf("MTU %d is out of range: use 576 to %d, or leave --mtu out", spec.MTU, 65535-130))
	}
	return n, nil
}

// placeIn sets gateway and range of a network in a subnet.
func placeIn(n overlay.Network, spec api.NetworkSpec, subnet netip.Prefix) (overlay.Network, error) {
	n.Gateway = overlay.DefaultGateway(subnet)
	var err error
	if spec.Gateway != "" {
		if n.Gateway, err = overlay.ParseGateway(spec.Gateway, subnet); err != nil {
			return n, err
		}
	}
	if spec.IPRange != "" {
		n.IPRange, err = overlay.ParseIPRange(spec.IPRange, subnet)
	}
	return n, err
}

// tryCreate decides from Consul's present state and writes; consul.ErrConflict when that state moved meanwhile.
func (a *Agent) tryCreate(ctx context.Context, spec api.NetworkSpec, n overlay.Network) (overlay.Network, error) {
	pairs, err := a.consul.List(ctx, consul.NetworksDir)
	if err != nil {
		return n, err
	}
	a.offer(pairs)
	vnis, err := a.consul.List(ctx, consul.VNIsDir)
	if err != nil {
		return n, err
	}
	s := a.snap.Load()
	path := networkPath(n.Name)
	version := uint64(0)
	for _, p := range pairs {
		if p.Path == path {
			version = p.Version
		}
	}
	old, exists := s.Networks[n.Name]
	if exists && old.Alive() {
		return n, apiErr(api.Conflict, "network %q exists already (subnet %s): choose another name, or remove it with `weft network rm %s`", n.Name, old.Subnet(), n.Name)
	}
	if n, err = a.complete(n, spec, s, vnis); err != nil {
		return n, err
	}
	if exists {
		n.Replaces = append(slices.Clone(old.Replaces), old.ID)
		n.Replaces = n.Replaces[max(0, len(n.Replaces)-overlay.MaxReplaces):]
	}
	a.mu.Lock()
	n.Revision = a.ledger.Revision(path) + 1
	env := keys.Envelope{Kind: ledger.KindNetwork, Cluster: a.state.Cluster, Path: path}
	a.mu.Unlock()
	value, err := env.Seal(a.identity, n)
	if err != nil {
		return n, fmt.Errorf("sign network %s: %w", n.Name, err)
	}
	lease, err := vniLease(n)
	if err != nil {
		return n, err
	}
	if err := a.consul.Txn(ctx, consul.CAS(path, value, version), consul.CAS(consul.VNIPath(n.VNI), lease, 0)); err != nil {
		return n, err
	}
	a.offer([]consul.Pair{{Path: path, Value: value}})
	if got := a.snap.Load().Networks[n.Name]; got.ID != n.ID {
		a.mu.Lock()
		why := a.ledger.Rejected()[path]
		a.mu.Unlock()
		return n, apiErr(api.Conflict, "network %s was written to Consul, but this node cannot accept it: %s", n.Name, oneLine(why))
	}
	return n, nil
}

// vniLease is the value of the key that keeps a VNI for a network.
func vniLease(n overlay.Network) ([]byte, error) {
	return json.MarshalIndent(map[string]any{"network": n.ID, "name": n.Name}, "", "  ")
}

// holdVNI puts the lease of a network's VNI back if it is missing.
func (a *Agent) holdVNI(ctx context.Context, n overlay.Network) error {
	lease, err := vniLease(n)
	if err != nil {
		return err
	}
	if err := a.consul.Txn(ctx, consul.CAS(consul.VNIPath(n.VNI), lease, 0)); !errors.Is(err, consul.ErrConflict) {
		return err
	}
	return nil
}

// complete chooses what the request left open.
func (a *Agent) complete(n overlay.Network, spec api.NetworkSpec, s *overlay.Snapshot, vnis []consul.Pair) (overlay.Network, error) {
	if len(n.Subnets) == 0 {
		subnet, err := a.freeSubnet(s)
		if err != nil {
			return n, err
		}
		n.Subnets = []netip.Prefix{subnet}
		n.Gateway = overlay.DefaultGateway(subnet)
	} else if err := a.checkOverlap(n, s); err != nil {
		return n, err
	}
	mtu, node := a.smallestMTU(s, n.Encrypted)
	switch {
	case n.MTU == 0:
		n.MTU = mtu
	case n.MTU > mtu:
		return n, apiErr(api.Conflict, "MTU %d does not fit: the underlay of node %s carries %d: use --mtu %d or less", n.MTU, node, mtu, mtu)
	}
	if n.MTU < 576 {
		return n, apiErr(api.Conflict, "the underlay of node %s is too small for a network: its MTU would be %d", node, n.MTU)
	}
	n.VNI = overlay.MinVNI
	for _, known := range s.Networks { // tombstones too: a number rests for as long as they stand
		n.VNI = max(n.VNI, known.VNI+1)
	}
	leased := map[overlay.VNI]bool{}
	for _, p := range vnis {
		if v, err := consul.ParseVNIPath(p.Path); err == nil {
			leased[v] = true
		}
	}
	for leased[n.VNI] { // by a network that is not known here
		n.VNI++
	}
	if n.VNI > overlay.MaxVNI {
		return n, apiErr(api.Exhausted, "all VNIs up to %d are used: delete old keys under vnis/ in Consul", overlay.MaxVNI)
	}
	n.ID = overlay.NewNetworkID()
	n.Signer, n.Created = a.opt.Config.NodeName, time.Now().UTC().Truncate(time.Second)
	return n, nil
}

// smallestMTU is the endpoint MTU that every present node's underlay carries, and the node that bounds it.
func (a *Agent) smallestMTU(s *overlay.Snapshot, encrypted bool) (int, string) {
	mtu, node := a.under.MTU, a.opt.Config.NodeName
	for _, n := range s.Nodes {
		if n.Present() && n.UnderlayMTU < mtu {
			mtu, node = n.UnderlayMTU, n.Name
		}
	}
	return plan.NetworkMTU(min(mtu, 65535), encrypted), node
}

// checkOverlap refuses a subnet that another network or a route of this host uses.
func (a *Agent) checkOverlap(n overlay.Network, s *overlay.Snapshot) error {
	if n.AllowOverlap {
		return nil
	}
	routes, err := a.kernel.HostRoutes()
	if err != nil {
		return err
	}
	return a.overlap(n.Subnet(), s, routes)
}

// overlap says what of the cluster or of this host, whose routes are given, a subnet overlaps; nil for nothing.
func (a *Agent) overlap(subnet netip.Prefix, s *overlay.Snapshot, routes []netip.Prefix) error {
	if names := plan.Overlaps(subnet, s); len(names) > 0 {
		name := names[0]
		return apiErr(api.Conflict, "subnet %s overlaps %s of network %s: choose another, or pass --allow-overlap", subnet, s.Networks[name].Subnet(), name)
	}
	for _, r := range routes {
		if r.Bits() > 0 && r.Overlaps(subnet) {
			return apiErr(api.Conflict, "subnet %s overlaps the route %s of this host: choose another, or pass --allow-overlap", subnet, r)
		}
	}
	for _, own := range []struct {
		key  string
		pool netip.Prefix
	}{{"vtep_pool", a.opt.Config.VTEPPool}, {"egress.pool", a.opt.Config.Egress.Pool}} {
		if own.pool.Overlaps(subnet) {
			return apiErr(api.Conflict, "subnet %s overlaps %s %s: choose another, or pass --allow-overlap", subnet, own.key, own.pool)
		}
	}
	return nil
}

// freeSubnet is the first subnet of the pools that overlaps nothing known.
func (a *Agent) freeSubnet(s *overlay.Snapshot) (netip.Prefix, error) {
	cfg := a.cfg.Load()
	routes, err := a.kernel.HostRoutes() // once: there may be thousands of candidates
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, pool := range cfg.Pools {
		for p := netip.PrefixFrom(pool.Masked().Addr(), max(cfg.PoolSize, pool.Bits())); pool.Contains(p.Addr()); p = nextPrefix(p) {
			if a.overlap(p, s, routes) == nil {
				return p, nil
			}
		}
	}
	return netip.Prefix{}, apiErr(api.Exhausted, "no free /%d subnet in the pools: add a range to pools, or pass --subnet", cfg.PoolSize)
}

// nextPrefix is the block after p of the same size; past the end of IPv4 it is invalid.
func nextPrefix(p netip.Prefix) netip.Prefix {
	b := p.Addr().As4()
	n := uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
	n += 1 << (32 - p.Bits())
	if n > 0xffffffff {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), p.Bits())
}
