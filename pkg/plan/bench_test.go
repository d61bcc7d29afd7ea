package plan

import (
	"fmt"
	"net/netip"
	"testing"

	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

// large is 250 nodes with 40 endpoints each on one /16 network.
func large() Input {
	w := newWorld(250)
	n := testNetwork(1, "big", true)
	n.Subnets, n.Gateway = []netip.Prefix{prefix("10.0.0.0/16")}, addr("10.0.0.1")
	n = w.network(1, n)
	for node := 1; node <= 250; node++ {
		var es []overlay.Endpoint
		for i := range 40 {
			e := testEndpoint(node, i, fmt.Sprintf("10.0.%d.%d", node, 2+i))
			if node == 1 {
				w.local(n, e)
			}
			es = append(es, e)
		}
		w.remote(node, n, 1, es...)
	}
	return w.Input
}

func BenchmarkCompute(b *testing.B) {
	in := large()
	for b.Loop() {
		Compute(in)
	}
}

func BenchmarkDiffOfEqual(b *testing.B) {
	in := large()
	want, _ := Compute(in)
	have, _ := Compute(in)
	b.ReportMetric(float64(len(want.Entries)), "items")
	for b.Loop() {
		if len(Diff(want, have)) > 0 {
			b.Fatal("not equal")
		}
	}
}

func BenchmarkDiffFromNothing(b *testing.B) {
	want, _ := Compute(large())
	for b.Loop() {
		Diff(want, kstate.NewState())
	}
}

// BenchmarkDiffOneNodeLess is the usual large change: a node with 40 endpoints goes.
func BenchmarkDiffOneNodeLess(b *testing.B) {
	in := large()
	have, _ := Compute(in)
	snap := *in.Snapshot
	snap.Endpoints = snap.Endpoints[:len(snap.Endpoints)-1]
	in.Snapshot = &snap
	want, _ := Compute(in)
	for b.Loop() {
		Diff(want, have)
	}
}
