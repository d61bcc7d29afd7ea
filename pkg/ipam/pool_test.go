package ipam_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"weft/pkg/ipam"
	"weft/pkg/ipam/ipamtest"
	"weft/pkg/overlay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func network(subnet, ipRange string) overlay.Network {
	p := netip.MustParsePrefix(subnet)
	n := overlay.Network{ID: "0123456789ab", Name: "my-app", Subnets: []netip.Prefix{p}, Gateway: p.Addr().Next()}
	if ipRange != "" {
		n.IPRange = netip.MustParsePrefix(ipRange)
	}
	return n
}

// world is some nodes' pools over one store, with recalls delivered to all of them.
type world struct {
	t     *testing.T
	store *ipamtest.Store
	net   overlay.Network
	pools map[string]*ipam.Pool
	ctx   context.Context
}

func newWorld(t *testing.T, n overlay.Network) *world {
	ctx, cancel := context.WithCancel(t.Context())
	w := &world{t: t, store: &ipamtest.Store{}, net: n, pools: map[string]*ipam.Pool{}, ctx: ctx}
	t.Cleanup(cancel)
	return w
}

func (w *world) config(node string) ipam.PoolConfig {
	return ipam.PoolConfig{
		Network: w.net, Node: node, Store: w.store,
		Nodes: func() int { return len(w.pools) },
		Recall: func(context.Context) error {
			for other, p := range w.pools {
				if other != node {
					go func() { _ = p.GiveBack(w.ctx) }()
				}
			}
			return nil
		},
	}
}

// idle makes a pool whose Run does not run; start one whose does.
func (w *world) idle(node string) *ipam.Pool {
	p := ipam.NewPool(w.config(node))
	p.Adopt(nil)
	w.pools[node] = p
	return p
}

func (w *world) start(nodes ...string) {
	for _, node := range nodes {
		w.idle(node)
	}
	for _, node := range nodes {
		go func() { _ = w.pools[node].Run(w.ctx) }()
	}
}

func (w *world) allocate(p *ipam.Pool, e string) netip.Addr {
	w.t.Helper()
	a, err := p.Allocate(w.ctx, overlay.EndpointID(e), netip.Addr{})
	if err != nil {
		w.t.Fatalf("allocate for %s: %v", e, err)
	}
	return a
}

// leases is the store as text, one "address node state endpoint" per line in order.
func (w *world) leases() string {
	w.t.Helper()
	leases, err := w.store.List(w.ctx, w.net.Name)
	if err != nil {
		w.t.Fatal(err)
	}
	m := map[netip.Addr]overlay.Lease{}
	var b strings.Builder
	for _, l := range leases {
		m[l.Address] = l
	}
	for a := w.net.Subnet().Addr(); w.net.Subnet().Contains(a); a = a.Next() {
		if l, ok := m[a]; ok {
			fmt.Fprintf(&b, "%s %s %s %s\n", a, l.Node, l.State, l.Endpoint)
		}
	}
	return b.String()
}

func (w *world) wantLeases(want string) {
	w.t.Helper()
	if diff := cmp.Diff(strings.ReplaceAll(want, "\t", ""), w.leases()); diff != "" {
		w.t.Errorf("leases (-want +got):\n%s", diff)
	}
}

func TestAllocateIsSerialAcrossNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, network("10.0.1.0/24", ""))
		a, b := w.idle("n1"), w.idle("n2")
		var got []string
		for i, p := range []*ipam.Pool{a, a, b, a, b} {
			got = append(got, w.allocate(p, fmt.Sprint("e", i)).String())
			time.Sleep(time.Second)
		}
		if diff := cmp.Diff([]string{"10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5", "10.0.1.6"}, got); diff != "" {
			t.Errorf("addresses (-want +got):\n%s", diff)
		}
		if again := w.allocate(a, "e0"); again.String() != "10.0.1.2" {
			t.Errorf("the same endpoint got %v the second time", again)
		}
	})
}

func TestSparesServeWhileTheStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, network("10.0.1.0/24", ""))
		w.start("n1")
		p := w.pools["n1"]
		w.allocate(p, "e0")
		synctest.Wait()
		w.wantLeases(`10.0.1.2 n1 used e0
			10.0.1.3 n1 spare 
			10.0.1.4 n1 spare 
			10.0.1.5 n1 spare 
			10.0.1.6 n1 spare 
			`)

		w.store.SetDown(true)
		before := time.Now()
		for i := 1; i <= 4; i++ {
			w.allocate(p, fmt.Sprint("e", i))
		}
		if d := time.Since(before); d > 0 {
			t.Errorf("four attaches took %v with the store down, want no wait", d)
		}
		if _, err := p.Allocate(w.ctx, "e5", netip.Addr{}); !errors.Is(err, ipamtest.ErrDown) {
			t.Errorf("the fifth attach says %v, want the store's error", err)
		}
		if err := release(p, netip.MustParseAddr("10.0.1.3")); err != nil {
			t.Error(err)
		}

		w.store.SetDown(false)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		w.wantLeases(`10.0.1.2 n1 used e0
			10.0.1.3 n1 quarantine e1
			10.0.1.4 n1 used e2
			10.0.1.5 n1 used e3
			10.0.1.6 n1 used e4
			10.0.1.7 n1 spare 
			10.0.1.8 n1 spare 
			10.0.1.9 n1 spare 
			10.0.1.10 n1 spare 
			`)
	})
}

func TestRestartWhileTheStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, network("10.0.1.0/24", ""))
		ctx, stop := context.WithCancel(w.ctx)
		p := w.idle("n1")
		go func() { _ = p.Run(ctx) }()
		w.allocate(p, "e0")
		w.allocate(p, "e1")
		synctest.Wait()
		_ = release(p, netip.MustParseAddr("10.0.1.3"))
		synctest.Wait()
		time.Sleep(50 * time.Second)
		stop()
		synctest.Wait()
		text, err := json.Marshal(p.Export())
		if err != nil {
			t.Fatal(err)
		}

		w.store.SetDown(true)
		cfg := w.config("n1")
		if err := json.Unmarshal(text, &cfg.Initial); err != nil {
			t.Fatal(err)
		}
		p = ipam.NewPool(cfg)
		p.Adopt(map[overlay.EndpointID]netip.Addr{"e0": netip.MustParseAddr("10.0.1.2")})
		go func() { _ = p.Run(w.ctx) }()
		if a := w.allocate(p, "e2"); a.String() != "10.0.1.4" {
			t.Errorf("after the restart e2 got %v, want the oldest spare", a)
		}
		w.store.SetDown(false)
		time.Sleep(55 * time.Second) // longer than was left of the quarantine, which has started over
		synctest.Wait()
		if got := w.leases(); !strings.Contains(got, "10.0.1.3 n1 quarantine e1\n") || !strings.Contains(got, "10.0.1.4 n1 used e2\n") {
			t.Errorf("leases after the restart:\n%s", got)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := w.leases(); strings.Contains(got, "10.0.1.3 ") {
			t.Errorf("the quarantine did not end:\n%s", got)
		}
	})
}

func TestQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, network("10.0.1.0/29", "")) // 5 usable, no spares
		w.start("n1")
		p := w.pools["n1"]
		for i := range 5 {
			w.allocate(p, fmt.Sprint("e", i))
		}
		a := netip.MustParseAddr("10.0.1.4")
		if err := release(p, a); err != nil {
			t.Fatal(err)
		}
		if err := release(p, a); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("second release says %v", err)
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		var full *ipam.ExhaustedError
		if _, err := p.Allocate(w.ctx, "f", netip.Addr{}); !errors.As(err, &full) {
			t.Fatalf("allocate in quarantine says %v", err)
		}
		want := "network my-app has no free address: subnet 10.0.1.0/29 has 5 usable: 4 used, 1 quarantined, 0 spare, 0 reserved; " +
			"detach endpoints and wait for the quarantine, or make a larger network"
		if full.Error() != want {
			t.Errorf("error is\n%s, want\n%s", full, want)
		}
		var taken *ipam.TakenError
		if _, err := p.Allocate(w.ctx, "f", a); !errors.As(err, &taken) || taken.Wait != time.Second {
			t.Errorf("asking for the quarantined address says %v", err)
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if got := w.allocate(p, "f"); got != a {
			t.Errorf("after the quarantine f got %v", got)
		}

		// Who held an address may take it back at once.
		_ = release(p, a)
		if got, err := p.Allocate(w.ctx, "f", a); err != nil || got != a {
			t.Errorf("f did not get its address back: %v, %v", got, err)
		}
	})
}

func TestWantedAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, network("10.0.1.0/24", "10.0.1.64/26"))
		w.start("n1", "n2")
		p, q := w.pools["n1"], w.pools["n2"]
		w.allocate(p, "e0") // .64; spares .65 to .67
		w.store.Put("my-app", overlay.Lease{Address: netip.MustParseAddr("10.0.1.9"), Node: "op", State: overlay.LeaseReserved})
		synctest.Wait()
		for _, tc := range []struct {
			name, want string
			pool       *ipam.Pool
			target     error
			text       string
		}{
			{"inside the subnet, outside the range", "10.0.1.5", p, nil, ""},
			{"taken here", "10.0.1.5", p, os.ErrExist, "address 10.0.1.5 of network my-app is taken by endpoint inside the subnet, outside the range on node n1"},
			{"taken there", "10.0.1.64", q, os.ErrExist, "address 10.0.1.64 of network my-app is taken by endpoint e0 on node n1"},
			{"reserved", "10.0.1.9", q, os.ErrExist, "address 10.0.1.9 of network my-app is reserved by an operator"},
			{"another node's spare is recalled", "10.0.1.65", q, nil, ""},
			{"outside", "10.0.2.5", p, ipam.ErrUnusable, "address 10.0.2.5 on network my-app: not usable: it is outside subnet 10.0.1.0/24"},
			{"gateway", "10.0.1.1", p, ipam.ErrUnusable, "address 10.0.1.1 on network my-app: not usable: it is the gateway"},
			{"broadcast", "10.0.1.255", p, ipam.ErrUnusable, "address 10.0.1.255 on network my-app: not usable: it is the network or broadcast address of 10.0.1.0/24"},
		} {
			a, err := tc.pool.Allocate(w.ctx, overlay.EndpointID(tc.name), netip.MustParseAddr(tc.want))
			switch {
			case tc.target == nil && (err != nil || a.String() != tc.want):
				t.Errorf("%s: got %v, %v", tc.name, a, err)
			case tc.target != nil && (!errors.Is(err, tc.target) || err.Error() != tc.text):
				t.Errorf("%s: error is\n%v, want\n%s", tc.name, err, tc.text)
			}
		}
		if _, err := p.Allocate(w.ctx, "e0", netip.MustParseAddr("10.0.1.200")); !errors.Is(err, os.ErrExist) {
			t.Errorf("a second address for e0: %v", err)
		}
	})
}

func TestEveryAddressFromThreeNodesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, network("10.0.1.0/24", ""))
		w.start("n1", "n2", "n3")
		AllAddresses(t, w.ctx, w.pools)
		var full *ipam.ExhaustedError
		_, err := w.pools["n2"].Allocate(w.ctx, "one more", netip.Addr{})
		if !errors.As(err, &full) || full.Used != 253 || full.Usable != 253 || full.Spare != 0 {
			t.Errorf("the 254th says %v", err)
		}
	})
}

// AllAddresses allocates 85 + 84 + 84 addresses concurrently and wants them different.
func AllAddresses(t *testing.T, ctx context.Context, pools map[string]*ipam.Pool) {
	t.Helper()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		seen = map[netip.Addr]string{}
	)
	for node, p := range pools {
		count := 84
		if node == "n1" {
			count = 85
		}
		for i := range count {
			wg.Go(func() {
				id := fmt.Sprintf("%s-e%d", node, i)
				a, err := p.Allocate(ctx, overlay.EndpointID(id), netip.Addr{})
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("allocate for %s: %v", id, err)
				} else if other, ok := seen[a]; ok {
					t.Errorf("%s and %s share %v", id, other, a)
				}
				seen[a] = id
			})
		}
	}
	wg.Wait()
	if len(seen) != 253 {
		t.Errorf("%d different addresses, want 253", len(seen))
	}
}

func TestNobodyGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, network("10.0.1.0/29", ""))
		for i := 2; i <= 6; i++ {
			l := overlay.Lease{Address: netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), Node: "silent", State: overlay.LeaseSpare}
			w.store.Put("my-app", l)
		}
		p := w.idle("n1")
		start := time.Now()
		_, err := p.Allocate(w.ctx, "e", netip.Addr{})
		if d := time.Since(start); d < 3*time.Second || d > 3200*time.Millisecond {
			t.Errorf("gave up after %v, want 3 s", d)
		}
		want := "0 used, 0 quarantined, 5 spare (silent 5), 0 reserved"
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want it to say %q", err, want)
		}
	})
}

func TestSparesAreGivenUpWhenTheNetworkFills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, network("10.0.1.0/26", "")) // 61 usable
		w.start("n1")
		p := w.pools["n1"]
		w.allocate(p, "e")
		synctest.Wait()
		if u := p.Usage(); u.Spare != 4 {
			t.Fatalf("%d spares, want 4", u.Spare)
		}
		for i := range 50 {
			w.allocate(p, fmt.Sprint("e", i))
		}
		synctest.Wait()
		if u := p.Usage(); u.Spare != 0 || u.Used != 51 || !strings.HasSuffix(w.leases(), "used e49\n") {
			t.Errorf("usage is %+v, want no spares\n%s", u, w.leases())
		}
	})
}

func TestWipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, network("10.0.1.0/24", ""))
		w.start("n1", "n2")
		w.allocate(w.pools["n1"], "e1")
		w.allocate(w.pools["n2"], "e2")
		synctest.Wait()
		before := w.leases()
		w.store.Wipe()

		// n2 finds out first. It takes neither n1's addresses, nor anything before its own are back.
		time.Sleep(time.Second)
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() { w.allocate(w.pools["n2"], fmt.Sprint("new", i)) })
		}
		time.Sleep(time.Second)
		if err := w.pools["n1"].Reassert(w.ctx); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		got := w.leases()
		for line := range strings.Lines(before) {
			f := strings.Fields(line)
			if !strings.Contains(got, f[0]+" "+f[1]+" ") {
				t.Errorf("lease %q did not come back to its node:\n%s", line, got)
			}
		}
		if p := append(w.pools["n1"].Problems(), w.pools["n2"].Problems()...); len(p) > 0 {
			t.Errorf("problems: %v", p)
		}
	})
}

func TestLostLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, network("10.0.1.0/24", ""))
		p := w.idle("n1")
		a := w.allocate(p, "e1")
		w.store.Put("my-app", overlay.Lease{Address: a, Node: "thief", Endpoint: "x", State: overlay.LeaseUsed})
		if err := p.Reassert(w.ctx); err != nil {
			t.Fatal(err)
		}
		want := []overlay.Problem{{Subject: "endpoint e1", Message: "its address 10.0.1.2 on network my-app is leased to node thief as well: detach one of the two"}}
		if diff := cmp.Diff(want, p.Problems()); diff != "" {
			t.Errorf("problems (-want +got):\n%s", diff)
		}
		w.wantLeases("10.0.1.2 thief used x\n") // what runs is left alone, and so is the other's lease
		if err := release(p, a); err != nil || !p.Idle() {
			t.Errorf("release of it: %v, idle %v", err, p.Idle())
		}
	})
}

func TestForgottenLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, network("10.0.1.0/24", ""))
		for i, s := range []overlay.LeaseState{overlay.LeaseUsed, overlay.LeaseSpare, overlay.LeaseQuarantine, overlay.LeaseUsed} {
			w.store.Put("my-app", overlay.Lease{Address: netip.AddrFrom4([4]byte{10, 0, 1, byte(2 + i)}), Node: "n1", State: s, Endpoint: overlay.EndpointID(fmt.Sprint("e", i))})
		}
		p := ipam.NewPool(w.config("n1"))
		p.Adopt(map[overlay.EndpointID]netip.Addr{"e3": netip.MustParseAddr("10.0.1.5")})
		w.pools["n1"] = p
		go func() { _ = p.Run(w.ctx) }()
		time.Sleep(time.Second)
		synctest.Wait()
		w.wantLeases(`10.0.1.2 n1 quarantine e0
			10.0.1.3 n1 spare e1
			10.0.1.4 n1 quarantine e2
			10.0.1.5 n1 used e3
			10.0.1.6 n1 spare 
			10.0.1.7 n1 spare 
			10.0.1.8 n1 spare 
			`)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := w.leases(); strings.Contains(got, "quarantine") {
			t.Errorf("forgotten leases were not freed:\n%s", got)
		}
	})
}

func TestNodeLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, network("10.0.1.0/24", ""))
		w.start("n1", "n2")
		a := w.allocate(w.pools["n1"], "e")
		w.allocate(w.pools["n2"], "f")
		synctest.Wait()
		_ = release(w.pools["n1"], a)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if !w.pools["n1"].Idle() || strings.Contains(w.leases(), " n1 ") {
			t.Errorf("n1 still has leases:\n%s", w.leases())
		}
		n, err := ipam.Free(w.ctx, w.store, "my-app", w.net.ID, "n2")
		if err != nil || n != 5 || w.leases() != "" {
			t.Errorf("free of n2: %d, %v\n%s", n, err, w.leases())
		}
	})
}
