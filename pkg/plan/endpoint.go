package plan

import (
	"net/netip"

	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

// endpoint puts one local endpoint: its port on the bridge and its own namespace. Broadcast leaves through the port so
// that endpoints of one node can find each other by ARP; everything else that is not addressed to it stays out.
func (b *builder) endpoint(s *segment, e overlay.LocalEndpoint, put func(kstate.Item)) {
	ns, port, inside := s.ns(), kstate.EndpointLink(e.ID), kstate.EndpointNS(e.ID)
	put(kstate.Link{NS: ns, Name: port, Kind: kstate.KindVeth, MTU: s.MTU,
		PeerNS: inside, PeerName: e.IfName, PeerMAC: e.MAC, PeerAlias: kstate.Mark + ":" + s.id() + ":" + string(e.ID)})
	put(kstate.Port{NS: ns, Link: port, Bridge: kstate.Bridge, Locked: true, BcastFlood: true, McastFlood: s.Multicast})
	put(kstate.FDB{NS: ns, Link: port, MAC: e.MAC, Master: true})
	put(kstate.Neigh{NS: ns, Link: kstate.Bridge, IP: e.Address, MAC: e.MAC})
	put(kstate.Up{NS: ns, Link: port})

	put(kstate.NetNS{Name: inside})
	put(kstate.Addr{NS: inside, Link: e.IfName, Prefix: netip.PrefixFrom(e.Address, s.Subnet().Bits())})
	put(kstate.Up{NS: inside, Link: e.IfName})
	if e.SourcePath == "" {
		put(kstate.Up{NS: inside, Link: lo}) // the namespace is weft's own
	}
	if !s.Internal && s.gateway() && b.routes(s, e) {
		put(kstate.Route{NS: inside, Dst: anywhere, Link: e.IfName, Via: s.Gateway})
	}
}

// routes says whether an endpoint has its namespace's default route. A namespace may be on several networks but has one
// default route: the oldest network's that has egress.
func (b *builder) routes(s *segment, e overlay.LocalEndpoint) bool {
	if e.SourceInode == 0 {
		return true
	}
	for _, other := range b.segments {
		if other.Internal || !other.gateway() {
			continue
		}
		for _, o := range other.local {
			if o.SourceInode == e.SourceInode {
				return o.ID == e.ID
			}
		}
	}
	return true
}
