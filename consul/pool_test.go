package consul_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weft/consul"
	"weft/pkg/ipam"
	"weft/pkg/overlay"
)

// Three nodes fill a /24 over a real Consul, with recalls as the agents deliver them.
func TestEveryAddressFromThreeNodes(t *testing.T) {
	s, _ := dev(t)
	n := overlay.Network{
		ID: "0123456789ab", Name: "my-app",
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}, Gateway: netip.MustParseAddr("10.0.1.1"),
	}
	pools := map[string]*ipam.Pool{}
	for _, node := range []string{"n1", "n2", "n3"} {
		c := client(t, consul.Config{Address: s.Address})
		p := ipam.NewPool(ipam.PoolConfig{
			Network: n, Node: node, Store: c.Leases(), Nodes: func() int { return 3 },
			Recall: func(ctx context.Context) error { return c.Recall(ctx, n.Name, node) },
		})
		p.Adopt(nil)
		pools[node] = p
		background(t, p.Run)
		background(t, func(ctx context.Context) error {
			first := true
			return c.Watch(ctx, consul.RecallDir, func([]consul.Pair) {
				if !first {
					_ = p.GiveBack(ctx)
				}
				first = false
			})
		})
		if _, err := p.Allocate(t.Context(), "first", netip.Addr{}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(500 * time.Millisecond) // let them fetch their spares

	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		seen = map[netip.Addr]string{}
	)
	start := time.Now()
	for node, p := range pools {
		for i := range map[string]int{"n1": 84, "n2": 83, "n3": 83}[node] {
			wg.Go(func() {
				id := fmt.Sprintf("%s-e%d", node, i)
				a, err := p.Allocate(t.Context(), overlay.EndpointID(id), netip.Addr{})
				mu.Lock()
				defer mu.Unlock()
				if other, ok := seen[a]; err != nil || ok {
					t.Errorf("%s got %v, %v (held by %q)", id, a, err, other)
				}
				seen[a] = id
			})
		}
	}
	wg.Wait()
	t.Logf("250 addresses in %v", time.Since(start))
	var full *ipam.ExhaustedError
	if _, err := pools["n2"].Allocate(t.Context(), "one more", netip.Addr{}); !errors.As(err, &full) || full.Used != 253 {
		t.Errorf("the 254th says %v", err)
	} else {
		t.Log(err)
	}
}
