package plan

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"

	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func one(r *rand.Rand, in int) bool { return r.IntN(in) == 0 }

// randomInput draws a world from small pools, so that VNIs, names, addresses and places are used again by other things
// and conflict. Every local endpoint's network has a record.
func randomInput(r *rand.Rand) Input {
	w := newWorld(1)
	randomSelf(r, &w.Self)
	for n := 2; n <= 1+r.IntN(4); n++ {
		node := testNode(n)
		if one(r, 6) {
			node.VTEP = testNode(1 + r.IntN(4)).VTEP
		}
		if one(r, 6) {
			node.WireGuard = append(node.WireGuard, overlay.WireGuardKey{Generation: 2, PublicKey: testKey(n, 2), Port: 51821})
		}
		node.Underlay = append(pick(r, nil, []netip.Addr{addr("2001:db8::1")}), node.Underlay...)
		if one(r, 8) {
			node.Left = epoch
		}
		if one(r, 8) {
			node.VXLANPort = 4790
		}
		w.snap.Nodes[node.Name] = node
	}
	var nets []overlay.Network
	for n := 1; n <= 4; n++ {
		if one(r, 3) {
			continue
		}
		net := testNetwork(n, pick(r, "a", "b")+fmt.Sprint(n), n%2 == 0)
		net.VNI = overlay.MinVNI + overlay.VNI(r.IntN(4))
		net.ID = pick(r, net.ID, net.ID[:8]+"beef")
		net.Subnets = []netip.Prefix{pick(r, prefix("10.0.0.0/16"), prefix("10.0.0.0/24"), prefix("10.0.1.0/24"), prefix("10.0.0.0/15"))}
		net.Gateway = net.Subnet().Addr().Next()
		net.Internal, net.Multicast = one(r, 3), one(r, 4)
		if one(r, 6) {
			net.Deleted = epoch
		}
		nets = append(nets, w.network(n, net))
	}
	for i := range nets {
		for n := 1; n <= 4; n++ {
			var es []overlay.Endpoint
			for range r.IntN(3) {
				es = append(es, randomEndpoint(r, n, nets[i]))
			}
			w.remote(n, nets[i], i, es...)
		}
		for range r.IntN(4) {
			e := w.local(nets[i], randomEndpoint(r, 1, nets[i]))
			e.Leaving, e.IfName = one(r, 8), pick(r, "eth0", "eth0", "eth1")
			if one(r, 3) {
				e.SourcePath, e.SourceInode = "/proc/1/ns/net", uint64(1+r.IntN(2))
			}
		}
	}
	return w.Input
}

func randomSelf(r *rand.Rand, s *Self) {
	s.IPv6, s.BridgeNetfilter = one(r, 2), one(r, 2)
	s.Backend = pick(r, "kernel", "engine")
	s.Underlay = pick(r, s.Underlay, addr("192.0.2.101"))
	s.VTEP = pick(r, s.VTEP, s.VTEP, addr("100.64.9.9"), netip.Addr{})
	s.UnderlayMTU = pick(r, 1500, 1500, 9000, 1400, 0)
	s.ForwardHooks = pick(r, nil, []string{"FORWARD"}, []string{"DOCKER-USER", "FORWARD"})
	s.WireGuard = nil
	for g := 1 + r.IntN(2); g <= 2+r.IntN(2); g++ {
		s.WireGuard = append(s.WireGuard, overlay.WireGuardKey{Generation: g, PublicKey: testKey(1, g), Port: uint16(51819 + g)})
	}
}

func randomEndpoint(r *rand.Rand, node int, n overlay.Network) overlay.Endpoint {
	e := testEndpoint(node, r.IntN(8), "0.0.0.0")
	a := n.Subnet().Addr().As4()
	a[3] = byte(1 + r.IntN(12))
	e.Address = netip.AddrFrom4(a)
	if one(r, 6) {
		e.MAC = testMAC(0, r.IntN(3))
	}
	return e
}

// damage changes a kernel by hand: things go missing, are different, or are there although nobody wants them.
func damage(r *rand.Rand, f *fakeKernel, setTypes bool) {
	keys := slices.SortedFunc(maps.Keys(f.items), compareKeys)
	for range min(len(keys), r.IntN(12)) {
		k := pick(r, keys...)
		e, there := f.items[k]
		switch {
		case !there:
		case one(r, 2):
			delete(f.items, k)
		default:
			e.Item = bend(r, f, e.Item, setTypes)
			if e.Item.Key() == k {
				f.items[k] = e
			}
		}
		f.collect()
	}
	for range r.IntN(4) {
		it := stray(r)
		f.ends = nil
		if f.lacks(it) == "" && f.free(it) == nil {
			f.items[it.Key()] = kstate.Entry{Item: it}
			f.collect()
		}
	}
}

// bend returns an item that differs from it under the same key.
func bend(r *rand.Rand, f *fakeKernel, it kstate.Item, setTypes bool) kstate.Item {
	switch it := it.(type) {
	case kstate.Link:
		switch r.IntN(5) {
		case 0:
			it.MTU++
		case 1:
			it.MAC, it.PeerAlias = testMAC(9, 9), "weft:other"
		case 2:
			it.Port, it.Backend, it.PeerName = 4711, "engine", "moved0"
		case 3:
			it.Underlay, it.Local = kstate.Host, addr("192.0.2.200")
		case 4:
			it.VNI = overlay.MinVNI + overlay.VNI(r.IntN(4))
		}
		if f.free(it) == nil {
			return it
		}
	case kstate.Port:
		other := kstate.Link{NS: it.NS, Name: "br9", Kind: kstate.KindBridge}
		f.items[other.Key()] = kstate.Entry{Item: other}
		f.forget(it)
		it.Bridge, it.Flood = pick(r, "br0", "br9"), true
		return it
	case kstate.FDB:
		it.Dst = addr("192.0.2.99")
		return it
	case kstate.Neigh:
		it.MAC = testMAC(9, 9)
		return it
	case kstate.Chain:
		switch r.IntN(3) {
		case 0:
			it.Rules = "counter bent drop"
		case 1:
			it.Priority = 77
		case 2:
			it.Policy = "accept"
		}
		return it
	case kstate.NFSet:
		if setTypes {
			it.Type = "bent"
		}
		return it
	case kstate.Sysctl:
		it.Value = "7"
		return it
	case kstate.WGDevice:
		it.Port = 1
		return it
	case kstate.WGPeer:
		it.Fresh, it.Endpoint, it.Keepalive = one(r, 2), netip.MustParseAddrPort("203.0.113.1:9"), r.IntN(2)
		return it
	case kstate.Route:
		it.Src = addr("127.0.0.9")
		return it
	}
	return it
}

// stray is something that a former life of the agent may have left.
func stray(r *rand.Rand) kstate.Item {
	ns := pick(r, kstate.Host, kstate.Transit, kstate.NetworkNS(testID(1+r.IntN(4))), kstate.EndpointNS("e1-1"))
	mac, a := testMAC(7, r.IntN(3)), netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(9))})
	return pick[kstate.Item](r,
		kstate.NetNS{Name: kstate.NetworkNS(testID(r.IntN(9)))},
		kstate.NetNS{Name: kstate.EndpointNS(overlay.EndpointID(fmt.Sprintf("e1-%d", r.IntN(9))))},
		kstate.Link{NS: ns, Name: kstate.EndpointLink("e1-3"), Kind: kstate.KindVeth, PeerNS: kstate.EndpointNS("e1-3"), PeerName: "eth0"},
		kstate.Link{NS: kstate.NetworkNS(testID(2)), Name: "odd0", Kind: kstate.KindVXLAN, VNI: overlay.MinVNI + 1, Port: 4789},
		kstate.Neigh{NS: ns, Link: "br0", IP: a, MAC: mac},
		kstate.FDB{NS: ns, Link: "vxlan0", MAC: mac, Dst: a},
		kstate.Addr{NS: ns, Link: "br0", Prefix: netip.PrefixFrom(a, 24)},
		kstate.WGPeer{NS: kstate.Transit, Device: "weftwg0", PublicKey: testKey(8, r.IntN(3))},
		kstate.Elem{NS: ns, Family: kstate.Inet, Set: "members", Value: a.String() + " . 8388609"},
		kstate.Elem{NS: ns, Family: kstate.Inet, Set: "subnets", Value: netip.PrefixFrom(a, 30).Masked().String()},
		kstate.Elem{NS: ns, Family: kstate.Inet, Set: "subnets", Value: "10.0.0.0/8"},
		kstate.ForeignRule{Chain: "FORWARD", Rule: "iifname old* accept"},
		kstate.NFSet{NS: ns, Family: kstate.Inet, Name: "old", Type: "vni"},
		kstate.Route{NS: ns, Dst: netip.PrefixFrom(a, 32), Link: "br0"},
		kstate.Sysctl{NS: ns, Path: "net/ipv4/old", Value: "1"},
	)
}
