package kernel

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"weft/keys"
	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/netns/netnstest"
	"weft/pkg/overlay"
	"weft/pkg/plan"
	"weft/pkg/wireguard"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// tunBackend makes TUN devices, as the engine does, with nothing behind them.
type tunBackend struct{}

func (tunBackend) Name() string { return "engine" }

func (tunBackend) Create(_ context.Context, name string, mtu int) error {
	return netns.Do(kstate.Transit, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_DEFAULTS}); err != nil {
			return err
		}
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(l, mtu)
	})
}

func (tunBackend) Delete(_ context.Context, name string) error {
	return netns.Do(kstate.Transit, func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return translate(err)
		}
		return netlink.LinkDel(l)
	})
}

// memDevices remembers WireGuard configuration.
type memDevices struct {
	mu      sync.Mutex
	devices map[string]kstate.WGDevice
	peers   map[kstate.Key]kstate.WGPeer
}

func (m *memDevices) Observe(time.Time) (d []kstate.WGDevice, p []kstate.WGPeer, s []wireguard.PeerStats, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.devices {
		d = append(d, v)
	}
	for _, v := range m.peers {
		p = append(p, v)
		s = append(s, wireguard.PeerStats{Device: v.Device, PublicKey: v.PublicKey})
	}
	return d, p, s, nil
}

func (m *memDevices) SetDevice(d kstate.WGDevice, key keys.PrivateKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if key.Public() != d.PublicKey {
		return fmt.Errorf("wrong key for %s", d.Name)
	}
	m.devices[d.Name] = d
	return nil
}

func (m *memDevices) SetPeer(p kstate.WGPeer, psk *keys.PresharedKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if (p.Preshared != "") != (psk != nil) {
		return fmt.Errorf("preshared key of %s", p.PublicKey)
	}
	m.peers[p.Key()] = p
	return nil
}

func (m *memDevices) RemovePeer(device string, k keys.PublicKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.peers, kstate.WGPeer{NS: kstate.Transit, Device: device, PublicKey: k}.Key())
	return nil
}

func newKey(t testing.TB) keys.PrivateKey {
	t.Helper()
	k, err := keys.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// world is a kernel under test with what a node of a small cluster decides from.
type world struct {
	*Kernel
	t    testing.TB
	in   plan.Input
	devs *memDevices
}

func newWorld(t testing.TB) *world {
	netnstest.Need(t)
	own := newKey(t)
	w := &world{t: t, devs: &memDevices{devices: map[string]kstate.WGDevice{}, peers: map[kstate.Key]kstate.WGPeer{}}}
	var err error
	w.Kernel, err = New(Config{
		Log: slog.New(slog.DiscardHandler), Backend: tunBackend{}, Devices: w.devs,
		Keyring: func(k keys.PublicKey) (keys.PrivateKey, bool) { return own, k == own.Public() },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, op := range plan.Diff(prune(kstate.NewState()), w.observe(nil)) {
			if err := w.Apply(context.Background(), op); err != nil {
				t.Errorf("clean up: %v", err)
			}
		}
		if left := w.observe(nil); len(left.Entries) > 0 {
			t.Errorf("left behind:\n%s", left)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	w.in = plan.Input{Self: plan.Self{
		Node: "n1", VTEP: netip.MustParseAddr("100.64.0.1"), Underlay: netip.MustParseAddr("192.0.2.1"), UnderlayMTU: 1500,
		VXLANPort: 4789, Backend: "engine", WireGuard: []overlay.WireGuardKey{{Generation: 1, PublicKey: own.Public(), Port: 51820}},
		WGPorts: []uint16{51820, 51821}, EgressPool: netip.MustParsePrefix("169.254.64.0/18"),
		Routers: map[overlay.NetworkID]overlay.Router{}, Legs: map[overlay.NetworkID]overlay.Leg{}, IPv6: true,
	}, Snapshot: &overlay.Snapshot{Cluster: "c", Complete: true, Nodes: map[string]overlay.Node{}, Networks: map[string]overlay.Network{}}}
	_, err = os.Stat("/proc/sys/net/bridge")
	w.in.Self.BridgeNetfilter = err == nil
	for i := 1; i <= 3; i++ {
		pub := own.Public()
		if i > 1 {
			pub = newKey(t).Public()
		}
		name := fmt.Sprintf("n%d", i)
		w.in.Snapshot.Nodes[name] = overlay.Node{
			Name: name, WireGuard: []overlay.WireGuardKey{{Generation: 1, PublicKey: pub, Port: 51820}},
			Underlay: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}, UnderlayMTU: 1500,
			VTEP: netip.AddrFrom4([4]byte{100, 64, 0, byte(i)}), VXLANPort: 4789, Backend: "engine",
		}
	}
	return w
}

func prune(s *kstate.State) *kstate.State {
	s.Prune[""] = true
	return s
}

func mac(net, host, n int) overlay.MAC { return overlay.MAC{2, 0, byte(net), byte(host), 0, byte(n)} }

// network adds network number i (from 1) with endpoints here and one remote endpoint on each other node.
func (w *world) network(i int, encrypted bool, endpoints int) overlay.Network {
	w.t.Helper()
	mtu := 1450
	if encrypted {
		mtu = 1370
	}
	n := overlay.Network{
		ID: overlay.NetworkID(fmt.Sprintf("%012x", 0xa00000000000+i)), Name: fmt.Sprintf("net%d", i), VNI: overlay.MinVNI + overlay.VNI(i),
		Subnets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24)},
		Gateway: netip.AddrFrom4([4]byte{10, 0, byte(i), 1}), Encrypted: encrypted, MTU: mtu,
	}
	n.ID = overlay.NetworkID(fmt.Sprintf("%02x0000000000", 0xa0+i))
	w.in.Snapshot.Networks[n.Name] = n
	router := mac(i, 1, 255)
	w.in.Self.Routers[n.ID] = overlay.Router{MAC: router, Address: router.LinkLocal()}
	leg := netip.AddrFrom4([4]byte{169, 254, 64, byte(2 * i)})
	w.in.Self.Legs[n.ID] = overlay.Leg{Host: leg, Network: leg.Next()}
	for e := 1; e <= endpoints; e++ {
		id := overlay.EndpointID(fmt.Sprintf("%012x", i<<16+e))
		ns := kstate.EndpointNS(id)
		w.t.Cleanup(func() { _ = netns.Delete(ns) })
		if err := netns.Create(ns); err != nil {
			w.t.Fatal(err)
		}
		w.in.Local = append(w.in.Local, overlay.LocalEndpoint{
			Endpoint:  overlay.Endpoint{ID: id, Name: fmt.Sprintf("e%d", e), Address: netip.AddrFrom4([4]byte{10, 0, byte(i), byte(10 + e)}), MAC: mac(i, 1, e)},
			NetworkID: n.ID, Network: n.Name, IfName: "eth0", NetNS: ns,
		})
	}
	for host := 2; host <= 3; host++ {
		r := mac(i, host, 255)
		w.in.Snapshot.Endpoints = append(w.in.Snapshot.Endpoints, overlay.EndpointSet{
			Node: fmt.Sprintf("n%d", host), Network: n.Name, NetworkID: n.ID, Router: overlay.Router{MAC: r, Address: r.LinkLocal()},
			Endpoints: []overlay.Endpoint{{ID: overlay.EndpointID(fmt.Sprintf("remote%d%d", i, host)), Name: "r", Address: netip.AddrFrom4([4]byte{10, 0, byte(i), byte(100 + host)}), MAC: mac(i, host, 1)}},
		})
	}
	return n
}

func (w *world) want() *kstate.State {
	w.t.Helper()
	want, problems := plan.Compute(w.in)
	if len(problems) > 0 {
		w.t.Fatalf("plan: %v", problems)
	}
	return want
}

func (w *world) observe(want *kstate.State) *kstate.State {
	w.t.Helper()
	var scope Scope
	if want != nil {
		for _, e := range want.Entries {
			if s, ok := e.Item.(kstate.Sysctl); ok {
				scope.Sysctls = append(scope.Sysctls, s)
			}
		}
	}
	have, err := w.Observe(context.Background(), scope)
	if err != nil {
		w.t.Fatal(err)
	}
	return have
}

func (w *world) apply(verb kstate.Verb, it kstate.Item) {
	w.t.Helper()
	if err := w.Apply(context.Background(), kstate.Op{Verb: verb, Item: it}); err != nil {
		w.t.Fatal(err)
	}
}

// converge applies what Diff says and checks that the kernel then is as wanted.
func (w *world) converge() *kstate.State {
	w.t.Helper()
	want := w.want()
	for _, op := range plan.Diff(want, w.observe(want)) {
		if err := w.Apply(context.Background(), op); err != nil {
			w.t.Fatal(err)
		}
	}
	w.check(want)
	return want
}

// check compares the kernel with want.
func (w *world) check(want *kstate.State) {
	w.t.Helper()
	if diff := cmp.Diff(strings.Split(want.String(), "\n"), strings.Split(w.observe(want).String(), "\n")); diff != "" {
		w.t.Fatalf("state (-want +got):\n%s", diff)
	}
}

// sortedAdds are the items of a state in an order in which they can be added.
func sortedAdds(s *kstate.State) []kstate.Item {
	entries := s.Sorted()
	slices.SortStableFunc(entries, func(a, b kstate.Entry) int { return int(a.Item.Stage()) - int(b.Item.Stage()) })
	var out []kstate.Item
	for _, e := range entries {
		out = append(out, e.Item)
	}
	return out
}
