package kstate

import (
	"net/netip"
	"regexp"
	"testing"

	"weft/pkg/overlay"
)

func TestSame(t *testing.T) {
	peer := WGPeer{Device: "weftwg0", PublicKey: key, Endpoint: netip.MustParseAddrPort("192.0.2.2:1"), AllowedIPs: "100.64.0.2/32"}
	peerWith := func(f func(*WGPeer)) WGPeer { p := peer; f(&p); return p }
	link := Link{NS: "a", Name: "x", Kind: KindVeth, MAC: mac, MTU: 1450, PeerName: "y", PeerMAC: mac2}
	linkWith := func(f func(*Link)) Link { l := link; f(&l); return l }
	roam := func(p *WGPeer) { p.Endpoint = netip.MustParseAddrPort("203.0.113.9:9") }
	for _, c := range []struct {
		name       string
		want, have Item
		same       bool
	}{
		{"equal peers", peer, peer, true},
		{"freshness is no difference", peer, peerWith(func(p *WGPeer) { p.Fresh = true }), true},
		{"roamed and stale", peer, peerWith(roam), false},
		{"roamed and fresh", peer, peerWith(func(p *WGPeer) { roam(p); p.Fresh = true }), true},
		{"fresh, but other allowed addresses", peer, peerWith(func(p *WGPeer) { p.AllowedIPs, p.Fresh = "", true }), false},
		{"fresh, but no preshared key", peerWith(func(p *WGPeer) { p.Preshared = "0badcafe" }), peerWith(func(p *WGPeer) { p.Fresh = true }), false},
		{"peer and device", peer, WGDevice{}, false},
		{"peer and nothing", peer, nil, false},
		{"equal links", link, link, true},
		{"MAC differs", link, linkWith(func(l *Link) { l.MAC = mac2 }), false},
		{"MAC not managed", linkWith(func(l *Link) { l.MAC = overlay.MAC{} }), link, true},
		{"MAC unknown", link, linkWith(func(l *Link) { l.MAC = overlay.MAC{} }), false},
		{"far MAC not managed", linkWith(func(l *Link) { l.PeerMAC = overlay.MAC{} }), link, true},
		{"MTU not managed", linkWith(func(l *Link) { l.MTU = 0 }), link, true},
		{"MTU differs", link, linkWith(func(l *Link) { l.MTU = 1 }), false},
		{"not managed does not hide the rest", linkWith(func(l *Link) { l.MAC = overlay.MAC{} }), linkWith(func(l *Link) { l.PeerName = "z" }), false},
		{"link and nothing", link, nil, false},
		{"sysctl value", Sysctl{Path: "a", Value: "0"}, Sysctl{Path: "a", Value: "1"}, false},
		{"equal routes", Route{Link: "a"}, Route{Link: "a"}, true},
	} {
		if got := Same(c.want, c.have); got != c.same {
			t.Errorf("%s: Same = %v, want %v", c.name, got, c.same)
		}
	}
	for _, it := range sample() {
		if !Same(it, it) || Recreate(it, it) {
			t.Errorf("%q differs from itself", it)
		}
	}
}

func TestRecreate(t *testing.T) {
	vx := Link{NS: "a", Name: VXLAN, Kind: KindVXLAN, MTU: 1450, VNI: 9, Local: vtep, Port: 4789, Underlay: Transit}
	with := func(f func(*Link)) Link { l := vx; f(&l); return l }
	chain := Chain{Name: "input", Type: "filter", Hook: "input", Policy: "drop", Rules: "a"}
	chainWith := func(f func(*Chain)) Chain { c := chain; f(&c); return c }
	for _, c := range []struct {
		name       string
		want, have Item
		recreate   bool
	}{
		{"link MTU", vx, with(func(l *Link) { l.MTU = 1 }), false},
		{"link MAC", vx, with(func(l *Link) { l.MAC = mac }), false},
		{"far MAC and alias", vx, with(func(l *Link) { l.PeerMAC, l.PeerAlias = mac, "weft:x" }), false},
		{"kind", vx, with(func(l *Link) { l.Kind = KindBridge }), true},
		{"VNI", vx, with(func(l *Link) { l.VNI++ }), true},
		{"source", vx, with(func(l *Link) { l.Local = vtep2 }), true},
		{"port", vx, with(func(l *Link) { l.Port++ }), true},
		{"underlay namespace", vx, with(func(l *Link) { l.Underlay = Host }), true},
		{"far end", vx, with(func(l *Link) { l.PeerName = "x" }), true},
		{"far namespace", vx, with(func(l *Link) { l.PeerNS = "x" }), true},
		{"backend", vx, with(func(l *Link) { l.Backend = "engine" }), true},
		{"not a link", vx, nil, true},
		{"rules", chain, chainWith(func(c *Chain) { c.Rules = "b" }), false},
		{"policy", chain, chainWith(func(c *Chain) { c.Policy = "accept" }), false},
		{"hook", chain, chainWith(func(c *Chain) { c.Hook = "output" }), true},
		{"priority", chain, chainWith(func(c *Chain) { c.Priority = 1 }), true},
		{"chain type", chain, chainWith(func(c *Chain) { c.Type = "nat" }), true},
		{"set type", NFSet{Name: "a", Type: "vni"}, NFSet{Name: "a"}, true},
		{"fdb destination", FDB{Dst: vtep}, FDB{Dst: vtep2}, false},
		{"route", Route{Link: "a"}, Route{Link: "b"}, false},
		{"sysctl", Sysctl{Value: "0"}, Sysctl{Value: "1"}, false},
		{"peer", WGPeer{Keepalive: 1}, WGPeer{}, false},
		{"port flags", Port{Locked: true}, Port{}, false},
	} {
		if got := Recreate(c.want, c.have); got != c.recreate {
			t.Errorf("%s: Recreate = %v, want %v", c.name, got, c.recreate)
		}
	}
}

// TestNames: what goes to the kernel as an interface name fits IFNAMSIZ, 15 characters and a zero (linux/if.h).
func TestNames(t *testing.T) {
	const id = overlay.NetworkID("0123456789ab")
	for _, c := range []struct {
		name, got, want string
		link            bool
	}{
		{"network namespace", NetworkNS(id), "weft-n-0123456789ab", false},
		{"endpoint namespace", EndpointNS("e1-1"), "weft-e-39fa797fbfed", false},
		{"endpoint link", EndpointLink("e1-1"), "e39fa797fbfed", true},
		{"endpoint link of a long id", EndpointLink(overlay.EndpointID(id + id + id + id + id)), "e36e603180227", true},
		{"leg", LegName(id), "weftx01234567", true},
		{"leg of a short id", LegName("ab"), "weftxab", true},
		{"first generation", WGName(1), "weftwg0", true},
		{"second generation", WGName(2), "weftwg1", true},
		{"third generation", WGName(3), "weftwg0", true},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.name, c.got, c.want)
		}
		if c.link && !regexp.MustCompile(`^[a-z0-9]{1,15}$`).MatchString(c.got) {
			t.Errorf("%s: %q is no interface name", c.name, c.got)
		}
	}
}
