package plan

import (
	"net/netip"
	"strconv"

	"weft/pkg/kstate"
)

const (
	typeMembers = "ipv4_addr . vni"
	lo          = "lo"
)

// transit puts what encrypted networks share: the namespace that a packet leaves only through WireGuard.
//
//	lo           the VTEP address: it outlives the WireGuard devices, so that a new key generation can take over
//	weftwg0/1    one per live key generation; the newest has the peers
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

// wireGuard puts the devices of the live key generations, and the peers on the newest.
func (b *builder) wireGuard(put func(kstate.Item)) {
	const ns = kstate.Transit
	newest, ok := b.newest()
	if !ok {
		return
	}
	device := kstate.WGName(newest.Generation)
	for _, k := range b.self.WireGuard {
		name := kstate.WGName(k.Generation)
		if name == device && k != newest {
			b.problem("node "+b.self.Node, "key generations %d and %d need the same WireGuard device: the older one is "+
				"dropped", k.Generation, newest.Generation)
			continue
		}
		put(kstate.Link{NS: ns, Name: name, Kind: kstate.KindWireGuard, MTU: transitMTU(b.self.UnderlayMTU), Backend: b.self.Backend})
		put(kstate.WGDevice{NS: ns, Name: name, PublicKey: k.PublicKey, Port: k.Port})
		put(kstate.Up{NS: ns, Link: name})
	}
	for _, p := range b.peers {
		if !p.mesh {
			continue
		}
		k := p.newestKey()
		put(kstate.WGPeer{
			NS: ns, Device: device, PublicKey: k.PublicKey,
			Endpoint:   netip.AddrPortFrom(p.Underlay[0], k.Port),
			AllowedIPs: single(p.VTEP).String(), Keepalive: b.self.Keepalive, Preshared: b.self.Preshared[p.name],
		})
		put(kstate.Route{NS: ns, Dst: single(p.VTEP), Link: device, Src: b.self.VTEP})
	}
}

// member is an element of a set "members": a source address that may send a VNI.
func member(ns string, from netip.Addr, s *segment) kstate.Elem {
	return kstate.Elem{NS: ns, Family: kstate.Inet, Set: "members",
		Value: from.String() + " . " + strconv.FormatUint(uint64(s.VNI), 10)}
}

// single is the prefix that holds just a.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
