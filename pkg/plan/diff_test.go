package plan

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/pkg/kstate"
)

// put makes a state of items, with the right to prune.
func put(items ...kstate.Item) *kstate.State {
	s := empty(true)
	for _, it := range items {
		s.Put("", it)
	}
	return s
}

// TestDiffGolden pins whole lists of operations for what happens to a node.
func TestDiffGolden(t *testing.T) {
	compute := func(w *world) *kstate.State { s, _ := Compute(w.Input); return s }
	more := threeNodes()
	more.remote(3, more.snap.Networks["web"], 1, testEndpoint(3, 9, "10.0.1.9"))
	more.local(more.snap.Networks["web"], testEndpoint(1, 9, "10.0.1.10"))
	moved := threeNodes()
	moved.Self.Underlay = addr("192.0.2.101")
	left := threeNodes()
	n2 := left.snap.Nodes["n2"]
	n2.Left = epoch
	left.snap.Nodes["n2"] = n2
	fewer := threeNodes()
	fewer.Local = fewer.Local[:1]
	other := threeNodes()
	other.Local[1].NetworkID, other.Local[1].Network = testID(1), "web"
	other.Local[1].Address = addr("10.0.1.7")
	for name, c := range map[string]struct{ want, have *kstate.State }{
		"start":            {compute(threeNodes()), kstate.NewState()},
		"endpoints_join":   {compute(more), compute(threeNodes())},
		"endpoints_leave":  {compute(threeNodes()), compute(more)},
		"underlay_changes": {compute(moved), compute(threeNodes())},
		"node_leaves":      {compute(left), compute(threeNodes())},
		"network_leaves":   {compute(fewer), compute(threeNodes())},
		"endpoint_moves":   {compute(other), compute(threeNodes())},
		"keys_rotate":      {compute(rotating()), compute(newWorld(2))},
		"records_vanish":   {compute(vanished()), compute(threeNodes())},
		"host_routes_go":   {compute(overlapping()), compute(hostRoutes())},
		"everything_goes":  {empty(true), compute(threeNodes())},
	} {
		t.Run(name, func(t *testing.T) {
			ops := Diff(c.want, c.have)
			checkOrder(t, ops)
			golden(t, "diff_"+name, opsText(ops))
		})
	}
}

// TestDiff holds the rules one by one.
func TestDiff(t *testing.T) {
	const ns = "weft-n-aa"
	var (
		nns    = kstate.NetNS{Name: ns}
		br     = kstate.Link{NS: ns, Name: "br0", Kind: kstate.KindBridge, MTU: 1450}
		vx     = kstate.Link{NS: ns, Name: "vxlan0", Kind: kstate.KindVXLAN, VNI: 9, Port: 4789, Local: addr("192.0.2.1")}
		vx2    = kstate.Link{NS: ns, Name: "vxlan0", Kind: kstate.KindVXLAN, VNI: 9, Port: 4789, Local: addr("192.0.2.2")}
		port   = kstate.Port{NS: ns, Link: "vxlan0", Bridge: "br0"}
		fdb    = kstate.FDB{NS: ns, Link: "vxlan0", MAC: testMAC(1, 1), Dst: addr("192.0.2.9")}
		master = kstate.FDB{NS: ns, Link: "vxlan0", MAC: testMAC(1, 1), Master: true}
		up     = kstate.Up{NS: ns, Link: "vxlan0"}
		table  = kstate.Table{NS: ns, Family: kstate.Inet}
		set    = kstate.NFSet{NS: ns, Family: kstate.Inet, Name: "s", Type: "vni"}
		elem   = kstate.Elem{NS: ns, Family: kstate.Inet, Set: "s", Value: "9"}
		rule   = kstate.Chain{NS: ns, Family: kstate.Inet, Name: "input", Type: "filter", Hook: "input", Policy: "accept", Rules: "udp dport 1 vni @s accept"}
		veth   = kstate.Link{NS: ns, Name: "e1", Kind: kstate.KindVeth, PeerNS: "weft-e-1", PeerName: "eth0"}
		far    = kstate.Addr{NS: "weft-e-1", Link: "eth0", Prefix: netip.MustParsePrefix("10.0.0.2/24")}
		ens    = kstate.NetNS{Name: "weft-e-1"}
		peer   = kstate.WGPeer{NS: kstate.Transit, Device: "weftwg0", PublicKey: testKey(2, 1), Endpoint: netip.MustParseAddrPort("192.0.2.2:1")}
	)
	rule2, rule3, set2, roamed, kept, veth2 := rule, rule, set, peer, peer, veth
	rule2.Rules, rule3.Priority, set2.Type = "accept", 7, "ipv4_addr"
	roamed.Endpoint, roamed.Fresh, roamed.Keepalive = netip.MustParseAddrPort("203.0.113.7:7"), true, 25
	kept.Endpoint, kept.Keepalive = roamed.Endpoint, 0
	veth2.NS = "weft-n-bb"
	for name, c := range map[string]struct {
		want, have []kstate.Item
		ops        []kstate.Op
	}{
		"equal": {[]kstate.Item{nns, br}, []kstate.Item{br, nns}, nil},
		"adds by stage": {[]kstate.Item{up, fdb, port, vx, br, rule, elem, set, table, nns}, nil, []kstate.Op{
			add(nns), add(table), add(set), add(elem), add(rule), add(br), add(vx), add(port), add(fdb), add(up)}},
		"removals by falling stage, what falls with a link left out": {[]kstate.Item{nns, br}, []kstate.Item{nns, br, vx, port, fdb, up, table}, []kstate.Op{
			remove(vx), remove(table)}},
		"rules change in place":           {[]kstate.Item{rule}, []kstate.Item{rule2}, []kstate.Op{change(rule, rule2)}},
		"a chain's priority does not":     {[]kstate.Item{rule}, []kstate.Item{rule3}, []kstate.Op{remove(rule3), add(rule)}},
		"a link is made again with all":   {[]kstate.Item{vx, port, fdb, master, up}, []kstate.Item{vx2, port, fdb, master, up}, []kstate.Op{remove(vx2), add(vx), add(port), add(master), add(fdb), add(up)}},
		"a set is made again with all":    {[]kstate.Item{set, elem, rule}, []kstate.Item{set2, elem, rule}, []kstate.Op{remove(rule), remove(set2), add(set), add(elem), add(rule)}},
		"a port that changes bridges":     {[]kstate.Item{vx, port, fdb, master}, []kstate.Item{vx, kstate.Port{NS: ns, Link: "vxlan0", Bridge: "br9"}, fdb, master}, []kstate.Op{change(port, kstate.Port{NS: ns, Link: "vxlan0", Bridge: "br9"}), add(master)}},
		"a namespace takes all with it":   {nil, []kstate.Item{nns, br, port, fdb, table, set, elem, rule}, []kstate.Op{remove(nns)}},
		"but links that reach out":        {nil, []kstate.Item{nns, br, vx, veth, far}, []kstate.Op{remove(vx), remove(veth), remove(nns)}},
		"a table takes its sets":          {[]kstate.Item{nns}, []kstate.Item{nns, table, set, elem, rule}, []kstate.Op{remove(table)}},
		"a set takes its elements":        {[]kstate.Item{nns, table}, []kstate.Item{nns, table, set, elem}, []kstate.Op{remove(set)}},
		"a bridge takes its ports":        {[]kstate.Item{nns, vx, fdb}, []kstate.Item{nns, vx, fdb, br, port, master}, []kstate.Op{remove(br)}},
		"a far end goes with the veth":    {[]kstate.Item{nns, ens}, []kstate.Item{nns, ens, veth, far}, []kstate.Op{remove(veth)}},
		"a far end that moves":            {[]kstate.Item{ens, veth2, far}, []kstate.Item{ens, veth, far}, []kstate.Op{remove(veth), add(veth2), add(far)}},
		"a VNI that moves":                {[]kstate.Item{kstate.Link{NS: "weft-n-bb", Name: "vxlan0", Kind: kstate.KindVXLAN, VNI: 9, Port: 4789}}, []kstate.Item{vx, up}, []kstate.Op{remove(vx), add(kstate.Link{NS: "weft-n-bb", Name: "vxlan0", Kind: kstate.KindVXLAN, VNI: 9, Port: 4789})}},
		"a VNI elsewhere is no conflict":  {[]kstate.Item{kstate.Link{NS: "weft-n-bb", Name: "vxlan0", Kind: kstate.KindVXLAN, VNI: 9, Port: 4789, Underlay: "weft-t"}}, []kstate.Item{vx}, []kstate.Op{add(kstate.Link{NS: "weft-n-bb", Name: "vxlan0", Kind: kstate.KindVXLAN, VNI: 9, Port: 4789, Underlay: "weft-t"}), remove(vx)}},
		"an address moves without a gap":  {[]kstate.Item{kstate.Addr{NS: "weft-e-2", Link: "eth0", Prefix: far.Prefix}}, []kstate.Item{far}, []kstate.Op{add(kstate.Addr{NS: "weft-e-2", Link: "eth0", Prefix: far.Prefix}), remove(far)}},
		"a roamed peer is as wanted":      {[]kstate.Item{peer}, []kstate.Item{withKeepalive(roamed, 0)}, nil},
		"and stays where it is":           {[]kstate.Item{peer}, []kstate.Item{roamed}, []kstate.Op{change(kept, roamed)}},
		"a stale peer gets the record's":  {[]kstate.Item{peer}, []kstate.Item{kept}, []kstate.Op{change(peer, kept)}},
		"sysctls and lo are left alone":   {nil, []kstate.Item{kstate.Sysctl{Path: "net/ipv4/ip_forward", Value: "1"}, kstate.Up{NS: kstate.Transit, Link: "lo"}}, nil},
		"an interval grows":               {[]kstate.Item{interval, cidr("10.0.0.0/16")}, []kstate.Item{interval, cidr("10.0.0.0/24"), cidr("10.0.9.0/24"), cidr("10.1.0.0/24")}, []kstate.Op{remove(cidr("10.0.0.0/24")), remove(cidr("10.0.9.0/24")), add(cidr("10.0.0.0/16")), remove(cidr("10.1.0.0/24"))}},
		"an interval shrinks":             {[]kstate.Item{interval, cidr("10.0.0.0/24"), cidr("10.0.9.0/24")}, []kstate.Item{interval, cidr("10.0.0.0/16")}, []kstate.Op{remove(cidr("10.0.0.0/16")), add(cidr("10.0.0.0/24")), add(cidr("10.0.9.0/24"))}},
		"two sets of one chain made anew": {[]kstate.Item{set, also, both}, []kstate.Item{set2, also2, both}, []kstate.Op{remove(both), remove(set2), add(set), remove(also2), add(also), add(both)}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Diff(put(c.want...), put(c.have...))
			checkOrder(t, got)
			if diff := cmp.Diff(opsText(c.ops), opsText(got)); diff != "" {
				t.Errorf("operations (-want +got):\n%s", diff)
			}
		})
	}
}

var (
	interval = kstate.NFSet{Family: kstate.Inet, Name: "subnets", Type: typeInterval}
	also     = kstate.NFSet{NS: "weft-n-aa", Family: kstate.Inet, Name: "t", Type: "vni"}
	also2    = kstate.NFSet{NS: "weft-n-aa", Family: kstate.Inet, Name: "t", Type: "ipv4_addr"}
	both     = kstate.Chain{NS: "weft-n-aa", Family: kstate.Inet, Name: "input", Rules: "vni @s accept\nvni @t accept"}
)

func cidr(s string) kstate.Elem {
	return kstate.Elem{Family: kstate.Inet, Set: "subnets", Value: s}
}
func add(it kstate.Item) kstate.Op         { return kstate.Op{Verb: kstate.Add, Item: it} }
func remove(it kstate.Item) kstate.Op      { return kstate.Op{Verb: kstate.Remove, Item: it} }
func change(it, old kstate.Item) kstate.Op { return kstate.Op{Verb: kstate.Set, Item: it, Old: old} }

func withKeepalive(p kstate.WGPeer, s int) kstate.WGPeer { p.Keepalive = s; return p }

// TestPruneGate asks item by item what a state with frozen groups lets go. Network aa is known, bb is frozen.
func TestPruneGate(t *testing.T) {
	want := empty(true)
	want.Prune[kstate.TransitGroup], want.Prune["aa112233"], want.Prune["bb112233"] = true, true, false
	want.Put("bb112233", kstate.NetNS{Name: "weft-e-b"})
	have := kstate.NewState()
	have.Put("", kstate.Link{NS: "weft-n-bb112233", Name: "vxlan0", Kind: kstate.KindVXLAN, VNI: 11})
	have.Put("", kstate.Link{NS: "weft-n-cc112233", Name: "vxlan0", Kind: kstate.KindVXLAN, VNI: 12})
	have.Put("", kstate.Link{NS: "weft-n-aa112233", Name: "vxlan0", Kind: kstate.KindVXLAN, VNI: 10})
	elem := func(ns, set, value string) kstate.Elem {
		return kstate.Elem{NS: ns, Family: kstate.Inet, Set: set, Value: value}
	}
	for _, c := range []struct {
		name  string
		item  kstate.Item
		group string
		may   bool
	}{
		{"in a known network", kstate.NetNS{Name: "weft-n-aa112233"}, "aa112233", true},
		{"in a frozen network", kstate.Neigh{NS: "weft-n-bb112233", Link: "br0"}, "bb112233", false},
		{"in a network nobody knows", kstate.NetNS{Name: "weft-n-cc112233"}, "cc112233", true},
		{"transit", kstate.WGPeer{NS: kstate.Transit, Device: "weftwg0"}, kstate.TransitGroup, true},
		{"endpoint of a frozen network", kstate.Up{NS: "weft-e-b", Link: "eth0"}, "bb112233", false},
		{"endpoint nobody knows", kstate.NetNS{Name: "weft-e-x"}, "", true},
		{"leg of a known network", kstate.Up{Link: "weftxaa112233"}, "aa112233", true},
		{"leg of a frozen network", kstate.Up{Link: "weftxbb112233"}, "bb112233", false},
		{"leg nobody knows", kstate.Up{Link: "weftxdd112233"}, "", true},
		{"host", kstate.ForeignRule{Chain: "FORWARD", Rule: "accept"}, "", true},
		{"member of a known network", elem("", "members", "192.0.2.1 . 10"), "aa112233", true},
		{"member of a frozen network", elem(kstate.Transit, "members", "100.64.0.1 . 11"), "bb112233", false},
		{"member of a network that goes", elem("", "members", "192.0.2.1 . 12"), "cc112233", true},
		{"member of who knows what, bb perhaps", elem("", "members", "192.0.2.1 . 13"), "", false},
		{"VNI of a known network", elem("", "vnis", "10"), "aa112233", true},
		{"VNI of a frozen network", elem("", "vnis", "11"), "bb112233", false},
		{"subnet of who knows what", elem("", "subnets", "10.0.0.0/24"), "", false},
		{"element in a network", elem("weft-n-aa112233", "src4", "x"), "aa112233", true},
		{"sysctl", kstate.Sysctl{NS: "weft-n-aa112233", Path: "x"}, "aa112233", false},
		{"loopback", kstate.Up{NS: "weft-n-aa112233", Link: "lo"}, "aa112233", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGroups(want, have)
			if got := g.of(c.item.Key(), c.item); got != c.group {
				t.Errorf("group %q, want %q", got, c.group)
			}
			if got := g.mayRemove(c.item.Key(), c.item); got != c.may {
				t.Errorf("may be removed: %v, want %v", got, c.may)
			}
		})
	}
	if g := newGroups(put(), have); !g.mayRemove(kstate.Key{}, elem("", "subnets", "10.0.0.0/24")) {
		t.Error("with nothing frozen an unknown subnet may not be removed")
	}
	if g := newGroups(kstate.NewState(), have); g.mayRemove(kstate.Key{}, kstate.NetNS{Name: "weft-n-cc112233"}) {
		t.Error("a state that says nothing about pruning lets things go")
	}
}

// TestFrozenRecreation: a link that must be made again on a frozen network gets back what stood on it.
func TestFrozenRecreation(t *testing.T) {
	const ns = "weft-n-aa"
	link := kstate.Link{NS: ns, Name: "vxlan0", Kind: kstate.KindVXLAN, VNI: 9, Port: 4789, Local: addr("192.0.2.1")}
	wrong := link
	wrong.Underlay = kstate.Transit
	fdb := kstate.FDB{NS: ns, Link: "vxlan0", MAC: testMAC(1, 1), Dst: addr("192.0.2.9")}
	want, have := kstate.NewState(), kstate.NewState()
	want.Put("aa", link)
	have.Put("aa", wrong)
	have.Put("aa", fdb)
	got := opsText(Diff(want, have))
	if diff := cmp.Diff(opsText([]kstate.Op{remove(wrong), add(link), add(fdb)}), got); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
}

// TestFrozenInterval: a range inside one that must stay is covered, and not added.
func TestFrozenInterval(t *testing.T) {
	want := put(interval, cidr("10.0.0.0/24"), cidr("10.1.0.0/16"))
	want.Prune["x"] = false
	have := put(interval, cidr("10.0.0.0/16"), cidr("10.1.0.0/24"))
	got := opsText(Diff(want, have))
	if diff := cmp.Diff(opsText([]kstate.Op{remove(cidr("10.1.0.0/24")), add(cidr("10.1.0.0/16"))}), got); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
}

// TestGroups: every operation carries the group that it fails with.
func TestGroups(t *testing.T) {
	s, _ := Compute(threeNodes().Input)
	for _, op := range append(Diff(s, kstate.NewState()), Diff(empty(true), s)...) {
		k, want := op.Item.Key(), ""
		switch {
		case k.NS == kstate.Transit:
			want = kstate.TransitGroup
		case len(k.NS) > 7 && k.NS[:7] == kstate.NetworkPrefix:
			want = k.NS[7:]
		default:
			continue
		}
		if e, ok := op.Item.(kstate.Elem); ok && e.Set == "members" {
			want = string(testID(2))
		}
		if op.Group != want {
			t.Errorf("%q has group %q, want %q", op, op.Group, want)
		}
	}
}

// TestTrashDoesNotBreakDiff: what an observer may bring along that nobody here would make.
func TestTrashDoesNotBreakDiff(t *testing.T) {
	trash := put(cidr("no prefix"), kstate.Elem{Set: "members"}, kstate.Elem{Set: "vnis", Value: " "}, kstate.Link{},
		kstate.Up{Link: "weftx"}, kstate.NetNS{}, kstate.NetNS{Name: "weft-n-"}, kstate.Port{})
	want := put(interval, cidr("10.0.0.0/8"), cidr("also none"))
	checkOrder(t, Diff(want, trash))
	checkOrder(t, Diff(trash, want))
	checkOrder(t, Diff(empty(true), trash))
}

func TestDependsOnTransit(t *testing.T) {
	s, _ := Compute(threeNodes().Input)
	want := map[string][]string{string(testID(2)): {kstate.TransitGroup}}
	if diff := cmp.Diff(want, s.Depends); diff != "" {
		t.Errorf("dependencies (-want +got):\n%s", diff)
	}
}
