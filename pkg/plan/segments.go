package plan

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

// segment is a network that has endpoints on this node, with every conflict settled.
type segment struct {
	overlay.Network
	router overlay.Router // zero: this node has none yet
	leg    overlay.Leg    // zero: no egress here
	local  []overlay.LocalEndpoint
	remote []remoteNode
	// overlay: the network has a VXLAN device here. Without it the local endpoints still reach each other.
	overlay bool
	claims  claims
	inbound []netip.Addr // of local endpoints that the host has a route to
}

func (s *segment) id() string    { return string(s.ID) }
func (s *segment) ns() string    { return kstate.NetworkNS(s.ID) }
func (s *segment) legged() bool  { return s.leg.Network.IsValid() }
func (s *segment) name() string  { return "network " + s.Name }
func (s *segment) gateway() bool { return s.Gateway.IsValid() }

// remoteNode is what another node has on a segment; dst is where its VXLAN device listens.
type remoteNode struct {
	*peer
	dst       netip.Addr
	router    overlay.Router // zero: none
	endpoints []overlay.Endpoint
}

// resolveSegments turns the local endpoints into segments, the oldest network first.
func (b *builder) resolveSegments(local []overlay.LocalEndpoint) {
	networks, byID := b.networks(), map[overlay.NetworkID]*segment{}
	frozen := map[overlay.NetworkID]bool{}
	var usable []overlay.LocalEndpoint
	for _, e := range local {
		switch _, known := networks[e.NetworkID]; {
		case e.Leaving:
		case known:
			usable = append(usable, e)
		default:
			frozen[e.NetworkID] = true
			b.freezeInbound(e)
			b.freeze(e)
		}
	}
	for _, e := range b.locals(usable) {
		n := networks[e.NetworkID]
		s := byID[n.ID]
		if s == nil {
			s = &segment{Network: n, router: b.self.Routers[n.ID]}
			byID[n.ID], b.segments = s, append(b.segments, s)
		}
		s.local = append(s.local, e)
	}
	b.frozen = slices.Sorted(maps.Keys(frozen))
	slices.SortFunc(b.segments, func(x, y *segment) int {
		return cmp.Or(x.Created.Compare(y.Created), cmp.Compare(x.Name, y.Name), cmp.Compare(x.ID, y.ID))
	})
	vnis, legs := map[overlay.VNI]string{}, map[string]string{}
	for _, s := range b.segments {
		b.checkNetwork(s)
		b.giveLeg(s, legs)
		b.giveOverlay(s, vnis)
		b.claimLocal(s)
	}
	b.resolveInbound()
}

// networks finds the record of each network id: the live one, else the tombstone.
func (b *builder) networks() map[overlay.NetworkID]overlay.Network {
	out := map[overlay.NetworkID]overlay.Network{}
	for _, name := range slices.Sorted(maps.Keys(b.snap.Networks)) {
		n := b.snap.Networks[name]
		n.Name = name
		have, dup := out[n.ID]
		if dup && have.Alive() && n.Alive() {
			b.problem("network "+name, "it has the id of network %s, which keeps it: remove it with \"weft network rm %s\"",
				have.Name, name)
		}
		if !dup || !have.Alive() && n.Alive() {
			out[n.ID] = n
		}
	}
	return out
}

// locals sorts endpoints and drops those that cannot be told apart in the kernel.
func (b *builder) locals(in []overlay.LocalEndpoint) []overlay.LocalEndpoint {
	type place struct {
		inode  uint64
		ifname string
	}
	ids, places := map[overlay.EndpointID]bool{}, map[place]overlay.EndpointID{}
	var out []overlay.LocalEndpoint
	for _, e := range slices.SortedFunc(slices.Values(in), byLocal) {
		at := place{e.SourceInode, e.IfName}
		switch other, taken := places[at]; {
		case ids[e.ID]:
			b.problem("endpoint "+string(e.ID), "it exists twice on this node: the one on network %s is left out; detach it",
				e.Network)
			continue
		case taken && e.SourceInode != 0:
			b.problem("endpoint "+string(e.ID), "its interface %s is already that of endpoint %s in the same namespace: it is "+
				"left out; attach it again with another --ifname", e.IfName, other)
			continue
		}
		ids[e.ID], places[at] = true, e.ID
		out = append(out, e)
	}
	return out
}

// byLocal orders local endpoints by id; what follows only matters when an id is there twice.
func byLocal(x, y overlay.LocalEndpoint) int {
	return cmp.Or(byID(x.Endpoint, y.Endpoint), cmp.Compare(x.NetworkID, y.NetworkID), cmp.Compare(x.IfName, y.IfName),
		cmp.Compare(x.SourceInode, y.SourceInode), cmp.Compare(x.SourcePath, y.SourcePath))
}

// freeze keeps hold of an endpoint whose network has no record: nothing of it can be computed, so nothing of it may be
// removed. Its namespace is wanted all the same, which tells Diff whose it is.
func (b *builder) freeze(e overlay.LocalEndpoint) {
	b.want.Put(string(e.NetworkID), kstate.NetNS{Name: kstate.EndpointNS(e.ID)})
	if !b.snap.Complete {
		return // absence means nothing yet
	}
	if n, again := b.snap.Networks[e.Network]; again {
		b.problem("network "+e.Network, "it was made anew with id %s while endpoints of the old one (id %s) exist here: the old "+
			"one stays as it is; detach its endpoints and attach them again", n.ID, e.NetworkID)
		return
	}
	b.problem("network "+e.Network, "its record is missing although endpoints of it exist here: it stays as it is; restore "+
		"the record, or detach its endpoints")
}

// checkNetwork mends what the record lacks.
func (b *builder) checkNetwork(s *segment) {
	if !s.Alive() {
		b.problem(s.name(), "it was deleted while %d endpoint(s) of it exist here: it is kept for them; detach them", len(s.local))
	}
	if fit := NetworkMTU(b.self.UnderlayMTU, s.Encrypted); s.MTU < minMTU {
		b.problem(s.name(), "its record has no usable MTU (%d): %d is used; create it again with --mtu", s.MTU, fit)
		s.MTU = fit
	}
	if !s.Gateway.Is4() || !s.Subnet().Contains(s.Gateway) {
		b.problem(s.name(), "its gateway %s is not an IPv4 address of its subnet %s: it has no gateway here; create it again",
			s.Gateway, s.Subnet())
		s.Gateway = netip.Addr{}
	}
	if s.router.MAC.IsZero() {
		b.problem(s.name(), "this node has no router address on it yet: probes do not work until the agent has made one")
	}
}

// giveLeg gives the segment its egress leg. The host's end is named by the first digits of the network id only.
func (b *builder) giveLeg(s *segment, taken map[string]string) {
	if s.Internal {
		return
	}
	leg, ok := b.self.Legs[s.ID]
	name := kstate.LegName(s.ID)
	switch other, dup := taken[name]; {
	case !ok || !leg.Host.Is4() || !leg.Network.Is4():
		b.problem(s.name(), "it has no egress on this node, because it has no leg: enlarge egress.pool, or create the network "+
			"with --internal")
	case dup:
		b.problem(s.name(), "it has no egress on this node: its leg %s is that of network %s; create it again", name, other)
	default:
		s.leg, taken[name] = leg, s.Name
	}
}

// giveOverlay decides whether this node can take part in the network beyond its own endpoints.
func (b *builder) giveOverlay(s *segment, vnis map[overlay.VNI]string) {
	newest, hasKey := b.newest()
	owner, taken := vnis[s.VNI]
	fit := NetworkMTU(b.self.UnderlayMTU, s.Encrypted)
	why := ""
	switch {
	case s.VNI == 0 || s.VNI > overlay.MaxVNI:
		why = "its VNI is not in 1-16777215; create it again"
	case taken:
		why = "its VNI is that of network " + owner + ", which is older; create the younger one again"
	case s.Encrypted && (!b.self.VTEP.Is4() || !hasKey || newest.PublicKey.IsZero()):
		why = "this node has no VTEP address or WireGuard key yet; see the agent's log"
	case !s.Encrypted && !b.self.Underlay.Is4():
		why = "this node has no IPv4 underlay address, which plain networks need; set advertise, or use an encrypted network"
	case b.self.UnderlayMTU != 0 && s.MTU > fit:
		b.problem(s.name(), "its MTU is %d, but this node's underlay (MTU %d) carries %d: endpoints here do not reach other "+
			"nodes; raise the underlay's MTU, or create the network with --mtu %d", s.MTU, b.self.UnderlayMTU, fit, fit)
		return
	}
	if why != "" {
		b.problem(s.name(), "endpoints here do not reach other nodes: %s", why)
		return
	}
	s.overlay, vnis[s.VNI] = true, s.Name
}
