package plan

import (
	"cmp"
	"math"
	"net/netip"
	"slices"

	"weft/pkg/overlay"
)

// claims says who has an address or a MAC on a segment. Whoever comes first keeps it: two forwarding entries for one
// MAC, or two neighbours for one address, would let the kernel's order decide.
type claims struct {
	addrs map[netip.Addr]string
	macs  map[overlay.MAC]string
}

// takeMAC claims a MAC for an owner, or says why not.
func (c claims) takeMAC(m overlay.MAC, owner string) (why string) {
	if m.IsZero() || m[0]&1 != 0 {
		return "its MAC " + m.String() + " is not a unicast address"
	}
	if other, taken := c.macs[m]; taken {
		return "its MAC " + m.String() + " is that of " + other
	}
	c.macs[m] = owner
	return ""
}

// takeEndpoint claims address and MAC of an endpoint, both or none.
func (c claims) takeEndpoint(s *segment, e overlay.Endpoint, owner string) (why string) {
	if !e.Address.Is4() || !s.Subnet().Contains(e.Address) {
		return "its address " + e.Address.String() + " is outside the subnet " + s.Subnet().String()
	}
	if other, taken := c.addrs[e.Address]; taken {
		return "its address " + e.Address.String() + " is that of " + other
	}
	if why = c.takeMAC(e.MAC, owner); why == "" {
		c.addrs[e.Address] = owner
	}
	return why
}

// claimLocal enters what this node has on a segment and drops local endpoints that cannot be.
func (b *builder) claimLocal(s *segment) {
	s.claims = claims{addrs: map[netip.Addr]string{}, macs: map[overlay.MAC]string{}}
	if s.gateway() {
		s.claims.addrs[s.Gateway] = "the gateway"
	}
	if !s.router.MAC.IsZero() {
		if why := s.claims.takeMAC(s.router.MAC, "this node's router"); why != "" {
			b.problem(s.name(), "this node's router cannot be used: %s; remove its state and restart the agent", why)
			s.router = overlay.Router{}
		}
	}
	s.local = slices.DeleteFunc(s.local, func(e overlay.LocalEndpoint) bool {
		why := s.claims.takeEndpoint(s, e.Endpoint, "endpoint "+string(e.ID)+" on this node")
		if why != "" {
			b.problem("endpoint "+string(e.ID), "on network %s %s: it is left out; detach it and attach it again", s.Name, why)
		}
		return why != ""
	})
}

// resolveRemote enters what the other nodes have on a segment, node by node.
func (b *builder) resolveRemote(s *segment) {
	if !s.overlay {
		return
	}
	var claimed []claimant
	for _, set := range slices.SortedFunc(slices.Values(b.sets[s.ID]), bySet) {
		p := b.peerOf[set.Node]
		r := remoteNode{peer: p, dst: p.plain}
		if s.Encrypted {
			r.dst = p.VTEP
		}
		switch {
		case !p.vxlan || s.Encrypted && !p.mesh:
			continue // reported with the node
		case !s.Encrypted && !p.plain.IsValid():
			b.problem("node "+p.name, "it has no IPv4 underlay address, which plain networks need: its endpoints on %s are "+
				"left out; set advertise on it", s.Name)
			continue
		}
		if set.Router != (overlay.Router{}) {
			r.router = b.claimRouter(s, set)
		}
		for _, e := range set.Endpoints {
			age, ok := b.leases[Claim{s.ID, p.name, e.Address}]
			if !ok {
				age = math.MaxUint64
			}
			claimed = append(claimed, claimant{len(s.remote), age, p.name, e})
		}
		s.remote = append(s.remote, r)
	}
	slices.SortFunc(claimed, func(x, y claimant) int {
		return cmp.Or(cmp.Compare(x.age, y.age), cmp.Compare(x.node, y.node), byID(x.Endpoint, y.Endpoint))
	})
	for _, c := range claimed {
		owner := "endpoint " + string(c.ID) + " on node " + c.node
		if why := s.claims.takeEndpoint(s, c.Endpoint, owner); why != "" {
			b.problem("node "+c.node, "its endpoint %s on network %s is left out: %s; detach one of the two and attach it "+
				"again", c.ID, s.Name, why)
			continue
		}
		r := &s.remote[c.remote]
		r.endpoints = append(r.endpoints, c.Endpoint)
	}
	for i := range s.remote {
		slices.SortFunc(s.remote[i].endpoints, byID)
	}
}

// claimant is an endpoint of another node, with the age of the lease that its claim rests on.
type claimant struct {
	remote int // index in segment.remote
	age    uint64
	node   string
	overlay.Endpoint
}

// claimRouter claims the router of a node, or reports why it is left out.
func (b *builder) claimRouter(s *segment, set overlay.EndpointSet) overlay.Router {
	why := ""
	if set.Router.Address != set.Router.MAC.LinkLocal() {
		why = "its address " + set.Router.Address.String() + " does not follow from its MAC " + set.Router.MAC.String()
	} else {
		why = s.claims.takeMAC(set.Router.MAC, "the router of node "+set.Node)
	}
	if why == "" {
		return set.Router
	}
	b.problem("node "+set.Node, "its router on network %s is left out: %s; restart its agent", s.Name, why)
	return overlay.Router{}
}

func bySet(a, b overlay.EndpointSet) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Network, b.Network), cmp.Compare(a.Revision, b.Revision))
}

// byID orders endpoints of one record. Ids are unique in a valid record; the rest makes the order total, so that a bad
// one is settled the same way every time.
func byID(a, b overlay.Endpoint) int {
	return cmp.Or(cmp.Compare(a.ID, b.ID), a.Address.Compare(b.Address), slices.Compare(a.MAC[:], b.MAC[:]))
}
