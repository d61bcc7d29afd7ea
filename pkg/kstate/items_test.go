package kstate

import (
	"net/netip"

	"weft/keys"
	"weft/pkg/overlay"
)

var (
	mac   = overlay.MAC{2, 0, 0, 0, 0, 1}
	mac2  = overlay.MAC{2, 0, 0, 0, 0, 2}
	vtep  = netip.MustParseAddr("100.64.0.1")
	vtep2 = netip.MustParseAddr("100.64.0.2")
	key   = keys.PublicKey{1}
)

// sample is one item of every kind, in a network's namespace where it makes sense, and some in others.
func sample() []Item {
	const ns = NetworkPrefix + "0123456789ab"
	leg := netip.MustParsePrefix("169.254.64.3/31")
	return []Item{
		NetNS{Name: ns}, NetNS{Name: Transit},
		Sysctl{NS: ns, Path: "net/ipv4/ip_forward", Value: "1"}, Sysctl{Path: "net/ipv4/ip_forward", Value: "1"},
		Table{NS: ns, Family: Inet}, Table{NS: ns, Family: BridgeFamily}, Table{Family: Inet},
		NFSet{NS: ns, Family: BridgeFamily, Name: "src4", Type: "ifname . ether_addr . ipv4_addr"},
		NFSet{NS: ns, Family: Inet, Name: "src4", Type: "vni"},
		Elem{NS: ns, Family: BridgeFamily, Set: "src4", Value: "e1 . 02:00:00:00:00:01 . 10.0.0.2"},
		Elem{NS: ns, Family: BridgeFamily, Set: "src4", Value: "e1 . 02:00:00:00:00:01 . 10.0.0.3"},
		Chain{NS: ns, Family: Inet, Name: "input", Type: "filter", Hook: "input", Priority: -10, Policy: "accept", Rules: "iifname lo accept\ncounter x drop"},
		Chain{NS: ns, Family: Inet, Name: "forward", Type: "filter", Hook: "forward", Policy: "drop"},
		ForeignRule{Chain: "DOCKER-USER", Rule: "iifname weftx* accept"}, ForeignRule{Chain: "FORWARD", Rule: "iifname weftx* accept"},
		Link{NS: ns, Name: Bridge, Kind: KindBridge, MAC: mac, MTU: 1450},
		Link{NS: ns, Name: VXLAN, Kind: KindVXLAN, MTU: 1370, VNI: 8388609, Local: vtep, Port: 4789, Underlay: Transit},
		Link{NS: ns, Name: LegInside, Kind: KindVeth, MTU: 1450, PeerName: "weftx01234567", PeerMAC: mac2, PeerAlias: "weft:0123456789ab"},
		Link{NS: Transit, Name: "weftwg0", Kind: KindWireGuard, MTU: 1420, Backend: "kernel"},
		Up{NS: ns, Link: Bridge}, Up{Link: "weftx01234567"},
		Port{NS: ns, Link: VXLAN, Bridge: Bridge, NeighSuppress: true},
		Port{NS: ns, Link: "e1", Bridge: Bridge, Learning: true, Flood: true, McastFlood: true, BcastFlood: true, Locked: true},
		Addr{NS: ns, Link: LegInside, Prefix: leg}, Addr{NS: ns, Link: Bridge, Prefix: leg},
		FDB{NS: ns, Link: VXLAN, MAC: mac, Dst: vtep2}, FDB{NS: ns, Link: VXLAN, MAC: mac, Master: true}, FDB{NS: ns, Link: VXLAN, MAC: mac2, Dst: vtep2},
		Neigh{NS: ns, Link: Bridge, IP: vtep, MAC: mac}, Neigh{NS: ns, Link: Bridge, IP: vtep2, MAC: mac},
		Route{NS: ns, Dst: netip.MustParsePrefix("0.0.0.0/0"), Link: LegInside, Via: vtep},
		Route{NS: Transit, Dst: netip.PrefixFrom(vtep2, 32), Link: "weftwg0", Src: vtep},
		WGDevice{NS: Transit, Name: "weftwg0", PublicKey: key, Port: 51820},
		WGPeer{NS: Transit, Device: "weftwg0", PublicKey: key, Endpoint: netip.MustParseAddrPort("192.0.2.2:51820"), AllowedIPs: "100.64.0.2/32"},
		WGPeer{NS: Transit, Device: "weftwg1", PublicKey: key, Endpoint: netip.MustParseAddrPort("[2001:db8::2]:51820"), AllowedIPs: "100.64.0.2/32", Keepalive: 25, Preshared: "0badcafe"},
	}
}
