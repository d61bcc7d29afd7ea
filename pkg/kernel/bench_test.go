package kernel

import (
	"context"
	"testing"

	"weft/pkg/kstate"
)

// BenchmarkObserve reads 3 networks with 20 endpoints; the target is below 10 ms.
func BenchmarkObserve(b *testing.B) {
	w := newWorld(b)
	w.network(1, false, 7)
	w.network(2, true, 7)
	w.network(3, true, 6)
	want := w.converge()
	var scope Scope
	for _, e := range want.Entries {
		if s, ok := e.Item.(kstate.Sysctl); ok {
			scope.Sysctls = append(scope.Sysctls, s)
		}
	}
	for b.Loop() {
		if _, err := w.Observe(context.Background(), scope); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAttach adds and removes what one endpoint needs.
func BenchmarkAttach(b *testing.B) {
	w := newWorld(b)
	w.network(1, true, 1)
	want := w.converge()
	var mine []kstate.Item
	link := kstate.EndpointLink(w.in.Local[0].ID)
	for _, it := range sortedAdds(want) {
		_, isNS := it.(kstate.NetNS)
		if k := it.Key(); !isNS && (k.NS == w.in.Local[0].NetNS || k.Name == link || it.On() == link) {
			mine = append(mine, it)
		}
	}
	for b.Loop() {
		for _, it := range mine {
			w.apply(kstate.Add, it)
		}
		b.StopTimer()
		w.apply(kstate.Remove, want.Entries[kstate.Link{NS: kstate.NetworkNS(w.in.Local[0].NetworkID), Name: link}.Key()].Item)
		b.StartTimer()
	}
}
