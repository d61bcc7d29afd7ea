package plan

import (
	"net/netip"

	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

// segment puts everything of one network:
//
//	weft-n-<id>:  br0 ─┬─ vxlan0 ······ underlay: weft-t (encrypted) or the host (plain)
//	                   ├─ e<hash> ───── eth0 in the endpoint's namespace
//	                   └ (gateway)
//	              egress0 ───────────── weftx<id> in the host
func (b *builder) segment(s *segment) {
	put := func(it kstate.Item) { b.want.Put(s.id(), it) }
	ns := s.ns()
	put(kstate.NetNS{Name: ns})
	put(kstate.Sysctl{NS: ns, Path: "net/ipv4/ip_forward", Value: onOff(s.legged())})
	if b.self.BridgeNetfilter {
		for _, table := range []string{"iptables", "ip6tables", "arptables"} {
			put(kstate.Sysctl{NS: ns, Path: "net/bridge/bridge-nf-call-" + table, Value: "0"})
		}
	}
	put(kstate.Up{NS: ns, Link: lo})
	bridgeFence(s, put)
	routerFence(s, put)
	b.bridge(s, put)
	if s.overlay {
		b.overlay(s, put)
	}
	if s.legged() {
		leg(s, put)
	}
	for _, e := range s.local {
		b.endpoint(s, e, put)
	}
	if s.Encrypted {
		b.want.Depends[s.id()] = []string{kstate.TransitGroup}
	}
}

// bridge puts the bridge with this node's own presence: the shared gateway, answered locally, and the router address.
func (b *builder) bridge(s *segment, put func(kstate.Item)) {
	ns := s.ns()
	put(kstate.Link{NS: ns, Name: kstate.Bridge, Kind: kstate.KindBridge, MAC: s.router.MAC, MTU: s.MTU})
	put(kstate.Up{NS: ns, Link: kstate.Bridge})
	if s.gateway() {
		put(kstate.Addr{NS: ns, Link: kstate.Bridge, Prefix: netip.PrefixFrom(s.Gateway, s.Subnet().Bits())})
	}
	if b.self.IPv6 && !s.router.MAC.IsZero() {
		put(kstate.Addr{NS: ns, Link: kstate.Bridge, Prefix: netip.PrefixFrom(s.router.MAC.LinkLocal(), 64)})
	}
}

// overlay puts the VXLAN device and what it needs to know of the other nodes: each remote MAC as "self dst" (where to
// send it) and as "master static" (without it, unicast to it would flood to the local endpoints). The fence elements
// let in what those nodes send.
func (b *builder) overlay(s *segment, put func(kstate.Item)) {
	ns, local, underlay := s.ns(), b.self.Underlay, kstate.Host
	if s.Encrypted {
		local, underlay = b.self.VTEP, kstate.Transit
	}
	put(kstate.Link{NS: ns, Name: kstate.VXLAN, Kind: kstate.KindVXLAN, MTU: s.MTU, VNI: s.VNI, Local: local,
		Port: b.self.VXLANPort, Underlay: underlay})
	put(kstate.Port{NS: ns, Link: kstate.VXLAN, Bridge: kstate.Bridge, NeighSuppress: true,
		McastFlood: s.Multicast, BcastFlood: s.Multicast})
	put(kstate.Up{NS: ns, Link: kstate.VXLAN})
	for _, r := range s.remote {
		put(member(underlay, r.dst, s))
		if !r.router.MAC.IsZero() {
			remoteMAC(ns, r.router.MAC, r.dst, put)
			if b.self.IPv6 {
				put(kstate.Neigh{NS: ns, Link: kstate.Bridge, IP: r.router.Address, MAC: r.router.MAC})
			}
		}
		for _, e := range r.endpoints {
			remoteMAC(ns, e.MAC, r.dst, put)
			put(kstate.Neigh{NS: ns, Link: kstate.Bridge, IP: e.Address, MAC: e.MAC})
		}
	}
}

func remoteMAC(ns string, m overlay.MAC, dst netip.Addr, put func(kstate.Item)) {
	put(kstate.FDB{NS: ns, Link: kstate.VXLAN, MAC: m, Dst: dst})
	put(kstate.FDB{NS: ns, Link: kstate.VXLAN, MAC: m, Master: true})
}

// leg puts the egress leg: a veth pair to the host with a /31 that is unique on the host.
func leg(s *segment, put func(kstate.Item)) {
	ns, outside := s.ns(), kstate.LegName(s.ID)
	put(kstate.Link{NS: ns, Name: kstate.LegInside, Kind: kstate.KindVeth, MTU: s.MTU,
		PeerNS: kstate.Host, PeerName: outside, PeerAlias: kstate.Mark + ":" + s.id()})
	put(kstate.Addr{NS: ns, Link: kstate.LegInside, Prefix: netip.PrefixFrom(s.leg.Network, 31)})
	put(kstate.Addr{NS: kstate.Host, Link: outside, Prefix: netip.PrefixFrom(s.leg.Host, 31)})
	put(kstate.Up{NS: ns, Link: kstate.LegInside})
	put(kstate.Up{NS: kstate.Host, Link: outside})
	put(kstate.Route{NS: ns, Dst: anywhere, Link: kstate.LegInside, Via: s.leg.Host})
}

// anywhere is the destination of a default route.
var anywhere = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

func onOff(on bool) string {
	if on {
		return "1"
	}
	return "0"
}
