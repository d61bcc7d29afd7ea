package plan

import (
	"net/netip"
	"strconv"

	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

const (
	typeMembers = "ipv4_addr . vni"
	lo          = "lo"
)

// transit puts what encrypted networks share: the namespace that a packet leaves only through WireGuard.
//
//	lo           the VTEP address: it outlives the WireGuard devices, so that a new key generation can take over
//	weftwg0/1    one per live key generation, with the peers that have the same generation
//	table inet   VXLAN only from (VTEP, VNI) pairs that are members: WireGuard proves the VTEP, not the network
func (b *builder) transit() {
	const ns = kstate.Transit
	put := func(it kstate.Item) { b.want.Put(kstate.TransitGroup, it) }
	put(kstate.NetNS{Name: ns})
	put(kstate.Sysctl{NS: ns, Path: "net/ipv4/conf/all/rp_filter", Value: "0"})
	put(kstate.Sysctl{NS: ns, Path: "net/ipv4/conf/default/rp_filter", Value: "0"})
	put(kstate.Up{NS: ns, Link: lo})
	if b.self.VTEP.IsValid() {
		put(kstate.Addr{NS: ns, Link: lo, Prefix: single(b.self.VTEP)})
	}
	put(kstate.Table{NS: ns, Family: kstate.Inet})
	put(kstate.NFSet{NS: ns, Family: kstate.Inet, Name: "members", Type: typeMembers})
	dport := "udp dport " + strconv.Itoa(int(b.self.VXLANPort))
	put(filter(ns, kstate.Inet, "input", 0, "drop",
		"iifname lo accept",
		dport+" ip saddr . vni @members accept",
		dport+" counter transit_vxlan drop",
		"icmp accept",
		"counter transit_in drop"))
	put(filter(ns, kstate.Inet, "forward", 0, "drop", "counter transit_forward drop"))
	b.wireGuard(put)
}

// wireGuard puts the devices of the live key generations, and on each the peers that have a key of the same generation.
// So a peer may be on two devices; its route says which of them carries the traffic.
func (b *builder) wireGuard(put func(kstate.Item)) {
	const ns = kstate.Transit
	for _, k := range b.self.WireGuard {
		if !b.device(k) {
			b.problem("node "+b.self.Node, "key generation %d and a newer one need the same WireGuard device: the older one is "+
				"dropped", k.Generation)
			continue
		}
		name := kstate.WGName(k.Generation)
		put(kstate.Link{NS: ns, Name: name, Kind: kstate.KindWireGuard, MTU: transitMTU(b.self.UnderlayMTU), Backend: b.self.Backend})
		put(kstate.WGDevice{NS: ns, Name: name, PublicKey: k.PublicKey, Port: k.Port})
		put(kstate.Up{NS: ns, Link: name})
	}
	for _, p := range b.peers {
		if !p.mesh {
			continue
		}
		sessions := b.sessions(p)
		for _, s := range sessions {
			psk := b.self.Preshared[s.their.PublicKey]
			if psk == "" && !s.own.KEM.IsZero() && !s.their.KEM.IsZero() {
				continue // agreeing; without the preshared key the far end would not answer
			}
			put(kstate.WGPeer{
				NS: ns, Device: kstate.WGName(s.own.Generation), PublicKey: s.their.PublicKey,
				Endpoint:   netip.AddrPortFrom(p.Underlay[0], s.their.Port),
				AllowedIPs: single(p.VTEP).String(), Keepalive: b.self.Keepalive, Preshared: psk,
			})
		}
		if s, ok := b.carrier(p, sessions); ok {
			put(kstate.Route{NS: ns, Dst: single(p.VTEP), Link: kstate.WGName(s.own.Generation), Src: b.self.VTEP})
		}
	}
}

// device reports whether an own generation has a device: two live ones alternate over two.
func (b *builder) device(k overlay.WireGuardKey) bool {
	for _, o := range b.self.WireGuard {
		if o.Generation > k.Generation && kstate.WGName(o.Generation) == kstate.WGName(k.Generation) {
			return false
		}
	}
	return true
}

// member is an element of a set "members": a source address that may send a VNI.
func member(ns string, from netip.Addr, s *segment) kstate.Elem {
	return kstate.Elem{NS: ns, Family: kstate.Inet, Set: "members",
		Value: from.String() + " . " + strconv.FormatUint(uint64(s.VNI), 10)}
}

// single is the prefix that holds just a.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
