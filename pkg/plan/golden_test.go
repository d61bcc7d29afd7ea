package plan

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with testdata/<name>.golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), run with -update if it is meant:\n%s", path, diff)
	}
}

// text is a whole decision.
func text(s *kstate.State, problems []overlay.Problem) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "problem: %s: %s\n", p.Subject, p.Message)
	}
	for _, g := range slices.Sorted(maps.Keys(s.Prune)) {
		fmt.Fprintf(&b, "group %q prune %v depends %q\n", g, s.Prune[g], s.Depends[g])
	}
	return b.String() + s.String()
}

func opsText(ops []kstate.Op) string {
	var b strings.Builder
	for _, op := range ops {
		b.WriteString(strings.ReplaceAll(op.String(), "\n", "\n    ") + "\n")
	}
	return b.String()
}

// threeNodes is a plain and an encrypted network over three nodes, with services.
func threeNodes() *world {
	w := newWorld(3)
	web, db := w.network(1, testNetwork(1, "web", false)), w.network(2, testNetwork(2, "db", true))
	a, b := testEndpoint(1, 1, "10.0.1.2"), testEndpoint(1, 2, "10.0.2.2")
	a.Services, a.Ports = []string{"web"}, []overlay.Port{{Name: "http", Port: 80, Proto: "tcp"}}
	w.local(web, a)
	w.local(db, b).SourcePath = "/proc/42/ns/net"
	w.remote(2, web, 1, testEndpoint(2, 1, "10.0.1.3"))
	w.remote(2, db, 2, testEndpoint(2, 2, "10.0.2.3"))
	w.remote(3, db, 2, testEndpoint(3, 1, "10.0.2.4"), testEndpoint(3, 2, "10.0.2.5"))
	w.Self.Preshared[testKey(2, 1)] = "0badcafe"
	return w
}

// overlapping is two networks with the same subnet, each with egress past Docker.
func overlapping() *world {
	w := newWorld(2)
	for i, name := range []string{"blue", "green"} {
		n := testNetwork(i+1, name, false)
		n.Subnets, n.Gateway, n.AllowOverlap = []netip.Prefix{prefix("10.9.0.0/24")}, addr("10.9.0.1"), true
		n = w.network(i+1, n)
		w.local(n, testEndpoint(1, i+1, "10.9.0.2"))
	}
	wide := testNetwork(3, "wide", true)
	wide.Subnets = []netip.Prefix{prefix("10.9.0.0/16")}
	w.snap.Networks["wide"] = wide
	w.Self.ForwardHooks = []string{"DOCKER-USER"}
	w.Self.IPv6, w.Self.BridgeNetfilter = false, false
	return w
}

func internal() *world {
	w := newWorld(1)
	n := testNetwork(1, "vault", true)
	n.Internal = true
	w.local(w.network(1, n), testEndpoint(1, 1, "10.0.1.2"))
	return w
}

func multicast() *world {
	w := newWorld(2)
	n := testNetwork(1, "video", false)
	n.Multicast, n.Internal = true, true
	n = w.network(1, n)
	w.local(n, testEndpoint(1, 1, "10.0.1.2"))
	w.remote(2, n, 1, testEndpoint(2, 1, "10.0.1.3"))
	return w
}

// rotating is a node with two live key generations, beside an IPv6 underlay and a node that said goodbye.
func rotating() *world {
	w := newWorld(3)
	w.Self.WireGuard = append(w.Self.WireGuard, overlay.WireGuardKey{Generation: 2, PublicKey: testKey(1, 2), Port: 51821})
	n2, n3 := w.snap.Nodes["n2"], w.snap.Nodes["n3"]
	n2.Underlay = []netip.Addr{addr("2001:db8::2"), addr("192.0.2.2")}
	n2.WireGuard = append(n2.WireGuard, overlay.WireGuardKey{Generation: 2, PublicKey: testKey(2, 2), Port: 51831})
	n3.Left = epoch
	w.snap.Nodes["n2"], w.snap.Nodes["n3"] = n2, n3
	w.Self.Backend = "engine"
	for i, name := range []string{"n4", "n5", "n6"} { // not carried yet; agreeing on a preshared key; has only the newer
		n := testNode(4 + i)
		n.WireGuard = append(n.WireGuard, overlay.WireGuardKey{Generation: 2, PublicKey: testKey(4+i, 2), Port: 51821})
		w.snap.Nodes[name] = n
	}
	n5, n6 := w.snap.Nodes["n5"], w.snap.Nodes["n6"]
	n5.WireGuard[1].KEM, w.Self.WireGuard[1].KEM = "their KEM key", "own KEM key"
	n6.WireGuard = n6.WireGuard[1:]
	w.snap.Nodes["n6"] = n6
	w.Self.Carried["n2"] = 2
	return w
}

// sharedNS is one container on three networks: it has one default route.
func sharedNS() *world {
	w := newWorld(1)
	for i, name := range []string{"inner", "young", "old"} {
		n := testNetwork(3-i, name, false)
		n.Internal = name == "inner"
		e := w.local(w.network(3-i, n), testEndpoint(1, i+1, fmt.Sprintf("10.0.%d.2", 3-i)))
		e.IfName, e.SourcePath, e.SourceInode = fmt.Sprintf("eth%d", i), "/run/netns/pod", 4711
	}
	clash := w.local(w.snap.Networks["old"], testEndpoint(1, 4, "10.0.1.3"))
	clash.IfName, clash.SourcePath, clash.SourceInode = "eth2", "/run/netns/pod", 4711
	return w
}

// hostRoutes is two networks with the same subnet whose endpoints ask for routes from the host, with everything that
// stands against one.
func hostRoutes() *world {
	w := overlapping()
	for i := range w.Local {
		w.Local[i].HostRoute = true
	}
	blue := w.snap.Networks["blue"]
	w.local(blue, testEndpoint(1, 3, "10.9.0.3")).HostRoute = true
	w.local(blue, testEndpoint(1, 4, "10.9.0.4"))
	inner := testNetwork(4, "inner", false)
	inner.Internal = true
	w.local(w.network(4, inner), testEndpoint(1, 5, "10.0.4.2")).HostRoute = true
	second := w.local(w.snap.Networks["green"], testEndpoint(1, 6, "10.9.0.6"))
	second.HostRoute, second.IfName, second.SourceInode = true, "eth1", 4711
	first := w.local(blue, testEndpoint(1, 7, "10.9.0.7"))
	first.SourceInode = 4711
	return w
}

func frozenSnapshot() *world {
	w := threeNodes()
	w.snap.Complete = false
	delete(w.snap.Networks, "db")
	return w
}

// vanished is a complete snapshot in which the records of two networks are missing and a third is a tombstone.
func vanished() *world {
	w := threeNodes()
	delete(w.snap.Networks, "db")
	again := testNetwork(8, "web", false)
	w.snap.Networks["web"] = again
	dead := testNetwork(4, "gone", false)
	dead.Deleted = epoch
	w.local(w.network(4, dead), testEndpoint(1, 4, "10.0.4.2"))
	w.local(dead, testEndpoint(1, 5, "10.0.4.3")).Leaving = true
	return w
}

// disputed holds every conflict between records that is settled here.
func disputed() *world {
	w := newWorld(9)
	web, db := w.network(1, testNetwork(1, "web", false)), w.network(2, testNetwork(2, "db", true))
	w.local(web, testEndpoint(1, 1, "10.0.1.2"))
	w.local(web, testEndpoint(1, 2, "10.0.1.2"))
	w.local(web, testEndpoint(1, 3, "10.7.7.7"))
	w.local(db, testEndpoint(1, 4, "10.0.2.2"))
	w.local(db, testEndpoint(1, 4, "10.0.2.9"))
	edit := func(name string, f func(*overlay.Node)) { n := w.snap.Nodes[name]; f(&n); w.snap.Nodes[name] = n }
	edit("n2", func(n *overlay.Node) { n.VTEP = w.Self.VTEP })
	edit("n3", func(n *overlay.Node) { n.WireGuard[0].PublicKey = testKey(1, 1) })
	edit("n5", func(n *overlay.Node) { n.VTEP = testNode(4).VTEP })
	edit("n6", func(n *overlay.Node) { n.VXLANPort = 4790 })
	edit("n7", func(n *overlay.Node) { n.Underlay = []netip.Addr{addr("2001:db8::7")} })
	edit("n8", func(n *overlay.Node) { n.WireGuard = nil })
	edit("n9", func(n *overlay.Node) { n.Underlay, n.VTEP = nil, netip.Addr{} })
	for n := 2; n <= 9; n++ {
		w.remote(n, web, 1, testEndpoint(n, 1, fmt.Sprintf("10.0.1.%d", n)))
		w.remote(n, db, 2, testEndpoint(n, 2, fmt.Sprintf("10.0.2.1%d", n)))
	}
	thief := testEndpoint(4, 3, "10.0.2.99")
	thief.MAC = testMAC(1, 4)
	posing := testEndpoint(4, 4, "10.0.2.1")
	nobody := testEndpoint(4, 5, "10.0.2.98")
	nobody.MAC = overlay.MAC{}
	w.snap.Endpoints[5].Endpoints = append(w.snap.Endpoints[5].Endpoints, thief, posing, nobody)
	w.snap.Endpoints[4].Router.Address = addr("fe80::1")
	w.snap.Endpoints = append(w.snap.Endpoints, overlay.EndpointSet{Node: "n77", Network: "web", NetworkID: web.ID,
		Endpoints: []overlay.Endpoint{testEndpoint(77, 1, "10.0.1.77")}})
	return w
}

// badNetworks holds what can be wrong with a network itself.
func badNetworks() *world {
	w := newWorld(2)
	for i, bad := range []func(*overlay.Network){
		func(n *overlay.Network) { n.Name, n.MTU = "fat", 9000 },
		func(n *overlay.Network) { n.Name, n.MTU = "thin", 0 },
		func(n *overlay.Network) { n.Name, n.Gateway = "lost", addr("10.99.0.1") },
		func(n *overlay.Network) { n.Name, n.VNI = "twin", overlay.MinVNI+2 },
		func(n *overlay.Network) { n.Name, n.VNI = "none", 0 },
		func(n *overlay.Network) { n.Name, n.ID = "samelg", testID(2)[:8]+"ffff" },
	} {
		n := testNetwork(i+1, "", false)
		bad(&n)
		n = w.network(i+1, n)
		w.local(n, testEndpoint(1, i+1, fmt.Sprintf("10.0.%d.2", i+1)))
		w.remote(2, n, i+1, testEndpoint(2, i+1, fmt.Sprintf("10.0.%d.3", i+1)))
	}
	double := testNetwork(1, "zz", false)
	w.snap.Networks["zz"] = double
	noLeg := testNetwork(7, "noleg", true)
	w.local(w.network(7, noLeg), testEndpoint(1, 7, "10.0.7.2"))
	delete(w.Self.Legs, noLeg.ID)
	delete(w.Self.Routers, noLeg.ID)
	w.Self.VTEP = netip.Addr{}
	return w
}

func TestComputeGolden(t *testing.T) {
	for name, w := range map[string]*world{
		"empty": newWorld(1), "three_nodes": threeNodes(), "overlapping": overlapping(), "internal": internal(),
		"multicast": multicast(), "rotating": rotating(), "shared_namespace": sharedNS(), "frozen": frozenSnapshot(),
		"vanished": vanished(), "disputed": disputed(), "bad_networks": badNetworks(),
		"host_routes": hostRoutes(),
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, text(Compute(w.Input))) })
	}
}

func TestComputeNothing(t *testing.T) {
	s, problems := Compute(Input{})
	if len(problems) > 0 || s.Prune[""] {
		t.Errorf("the zero input gives problems %v, prune %v; want none, false", problems, s.Prune[""])
	}
}
