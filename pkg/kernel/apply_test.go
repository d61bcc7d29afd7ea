package kernel

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/plan"
)

func TestRemoveWhatIsAbsent(t *testing.T) {
	w := newWorld(t)
	w.network(1, false, 1)
	w.network(2, true, 1)
	for _, it := range sortedAdds(w.want()) {
		if _, isNS := it.(kstate.NetNS); !isNS {
			w.apply(kstate.Remove, it)
		}
	}
}

// TestNamespaceHeldByASocket removes a network whose namespace something still holds: what would be in the way of its
// successor must be gone at once.
func TestNamespaceHeldByASocket(t *testing.T) {
	w := newWorld(t)
	n := w.network(1, false, 1)
	want := w.converge()
	held, err := os.Open(netns.Path(kstate.NetworkNS(n.ID)))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	w.apply(kstate.Remove, kstate.NetNS{Name: kstate.NetworkNS(n.ID)})
	if ok, _ := netns.Exists(kstate.NetworkNS(n.ID)); ok {
		t.Error("the name is still there")
	}
	for _, it := range sortedAdds(want) {
		w.apply(kstate.Add, it)
	}
	w.check(want)
}

// TestEndpointNamespaceIsNotOurs checks that nothing but our interface is seen or touched in an endpoint's namespace.
func TestEndpointNamespaceIsNotOurs(t *testing.T) {
	w := newWorld(t)
	w.network(1, false, 1)
	e := w.in.Local[0]
	sh(t, e.NetNS, `ip link add theirs type bridge; ip addr add 203.0.113.5/24 dev theirs; ip link set theirs up
		ip route add default via 203.0.113.1; nft add table inet weft; ip link set lo up`)
	w.converge()
	if got := sh(t, e.NetNS, "ip route show default"); !strings.Contains(got, "203.0.113.1 dev theirs") || !strings.Contains(got, "10.0.1.1 dev eth0 proto 87 metric") {
		t.Errorf("default routes:\n%s", got)
	}
	w.in.Local = nil
	held, err := os.Open(netns.Path(e.NetNS))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	w.converge()
	if ok, _ := netns.Exists(e.NetNS); ok {
		t.Error("our reference is still there")
	}
	t.Cleanup(func() { _ = netns.Delete("kept") })
	if err := netns.Bind(held.Name(), "kept"); err == nil {
		t.Fatal("the name should be gone")
	}
	err = netns.DoPath("/proc/self/fd/"+strconv.Itoa(int(held.Fd())), func() error {
		out, err := exec.Command("sh", "-c", "ip link; ip route; nft list tables").CombinedOutput()
		if got := string(out); !strings.Contains(got, "theirs") || !strings.Contains(got, "203.0.113.1") || !strings.Contains(got, "table inet weft") || strings.Contains(got, "eth0") ||
			!strings.Contains(got, "lo: <LOOPBACK,UP") {
			t.Errorf("the namespace holds:\n%s", got)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestTwoNetworksInOneNamespace attaches one container twice: each reference shows its own interface.
func TestTwoNetworksInOneNamespace(t *testing.T) {
	w := newWorld(t)
	w.network(1, false, 1)
	w.network(2, false, 1)
	a, b := &w.in.Local[0], &w.in.Local[1]
	if err := netns.Delete(b.NetNS); err != nil {
		t.Fatal(err)
	}
	if err := netns.Bind(netns.Path(a.NetNS), b.NetNS); err != nil {
		t.Fatal(err)
	}
	inode, err := netns.Inode(netns.Path(a.NetNS))
	if err != nil {
		t.Fatal(err)
	}
	a.SourceInode, b.SourceInode, b.IfName = inode, inode, "eth1"
	w.converge()
	w.in.Local = w.in.Local[:1]
	w.converge()
}

func TestVXLANInWrongNamespace(t *testing.T) {
	w := newWorld(t)
	n := w.network(1, true, 1)
	want := w.converge()
	ns := kstate.NetworkNS(n.ID)
	link := want.Entries[kstate.Link{NS: ns, Name: kstate.VXLAN}.Key()].Item.(kstate.Link)
	wrong := link
	wrong.Underlay = kstate.Host
	w.apply(kstate.Add, wrong)
	have := w.observe(want).Entries[link.Key()].Item
	if have != kstate.Item(wrong) || !kstate.Recreate(link, have) {
		t.Errorf("observed %s", have)
	}
	w.converge()
	sh(t, ns, "ip link del vxlan0; ip link add vxlan0 type vxlan id 8388609 dstport 4789 local 100.64.0.1 nolearning")
	if have := w.observe(want).Entries[link.Key()].Item.(kstate.Link); have.Underlay != elsewhere {
		t.Errorf("a device on top of its own namespace shows as %s", have)
	}
	w.converge()
	clash := wrong
	clash.NS, clash.Underlay = kstate.NetworkNS(n.ID), kstate.Transit
	clash.Name = "vxlan1"
	err := w.Apply(context.Background(), kstate.Op{Verb: kstate.Add, Item: clash})
	if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "VNI 8388609") {
		t.Errorf("the VNI is taken: %v", err)
	}
}

func TestApplyErrors(t *testing.T) {
	w := newWorld(t)
	w.network(1, false, 1)
	ns := w.in.Local[0].NetNS
	stranger := newKey(t).Public()
	for name, c := range map[string]struct {
		item kstate.Item
		is   error
		says string
	}{
		"no namespace":       {kstate.Up{NS: "weft-n-x", Link: "br0"}, fs.ErrNotExist, "in weft-n-x"},
		"no link":            {kstate.Up{NS: ns, Link: "eth7"}, fs.ErrNotExist, "eth7"},
		"no reference":       {kstate.NetNS{Name: "weft-e-gone"}, fs.ErrNotExist, "weft-e-gone"},
		"no private key":     {kstate.WGDevice{NS: kstate.Transit, Name: "weftwg0", PublicKey: stranger}, fs.ErrNotExist, stranger.String()},
		"no preshared key":   {kstate.WGPeer{NS: kstate.Transit, Device: "weftwg0", PublicKey: stranger, Preshared: "00000000"}, fs.ErrNotExist, "preshared"},
		"no such parameter":  {kstate.Sysctl{NS: ns, Path: "net/ipv4/no_such", Value: "1"}, fs.ErrNotExist, "no_such"},
		"parameter outside":  {kstate.Sysctl{NS: ns, Path: "../../etc/passwd", Value: "1"}, nil, "not a path below"},
		"bad rule":           {kstate.Chain{NS: ns, Family: kstate.Inet, Name: "x", Type: "filter", Hook: "input", Policy: "accept", Rules: "accept\njump"}, nil, `"jump"`},
		"bad hook":           {kstate.Chain{NS: ns, Family: kstate.Inet, Name: "x", Type: "filter", Hook: "ingress", Policy: "accept"}, nil, `"ingress"`},
		"no such set":        {kstate.Elem{NS: ns, Family: kstate.Inet, Set: "none", Value: "x"}, fs.ErrNotExist, "none"},
		"no foreign chain":   {kstate.ForeignRule{Chain: "NOPE", Rule: "iifname weftx* accept"}, fs.ErrNotExist, "NOPE"},
		"other backend":      {kstate.Link{NS: ns, Name: "weftwg0", Kind: kstate.KindWireGuard, Backend: "kernel"}, nil, "backend"},
		"unknown kind":       {kstate.Link{NS: ns, Name: "d0", Kind: "dummy"}, nil, "dummy"},
		"far end is taken":   {kstate.Link{NS: ns, Name: "v0", Kind: kstate.KindVeth, MTU: 1500, PeerNS: ns, PeerName: "lo"}, fs.ErrExist, "lo"},
		"address of no link": {kstate.Addr{NS: ns, Link: "x", Prefix: netip.MustParsePrefix("10.0.0.1/8")}, fs.ErrNotExist, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			err := w.Apply(context.Background(), kstate.Op{Verb: kstate.Add, Item: c.item})
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v that says %q", err, c.is, c.says)
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Apply(ctx, kstate.Op{Verb: kstate.Add, Item: kstate.NetNS{Name: kstate.Transit}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a Kernel without a log was made")
	}
}

// TestObserveIsSilent listens with other programs while the wanted state is observed.
func TestObserveIsSilent(t *testing.T) {
	w := newWorld(t)
	w.network(1, false, 2)
	n := w.network(2, true, 2)
	want := w.converge()
	ns := kstate.NetworkNS(n.ID)
	quiet := listen(t, kstate.Host, kstate.Transit, ns)
	for range 5 {
		if ops := plan.Diff(want, w.observe(want)); len(ops) > 0 {
			t.Errorf("operations: %v", ops)
		}
	}
	if said := quiet(); said != "" {
		t.Errorf("observing made the kernel say:\n%s", said)
	}
	control := listen(t, ns)
	sh(t, ns, "ip addr add 10.9.9.9/32 dev lo; nft add chain inet weft extra")
	if said := control(); !strings.Contains(said, "10.9.9.9") || !strings.Contains(said, "add chain inet weft extra") {
		t.Errorf("the listeners do not hear: %q", said)
	}
}

// listen starts monitors in namespaces; the result stops them and returns what they heard.
func listen(t *testing.T, namespaces ...string) func() string {
	t.Helper()
	var cmds []*exec.Cmd
	var heard []*strings.Builder
	for _, ns := range namespaces {
		for _, argv := range [][]string{{"ip", "monitor", "link", "address", "route"}, {"nft", "monitor"}} {
			c, out := exec.Command(argv[0], argv[1:]...), &strings.Builder{}
			c.Stdout, c.Stderr = out, out
			if err := netns.Do(ns, c.Start); err != nil {
				t.Fatal(err)
			}
			cmds, heard = append(cmds, c), append(heard, out)
		}
	}
	time.Sleep(200 * time.Millisecond)
	return func() string {
		time.Sleep(200 * time.Millisecond)
		said := ""
		for i, c := range cmds {
			_ = c.Process.Kill()
			_ = c.Wait()
			said += heard[i].String()
		}
		return said
	}
}
