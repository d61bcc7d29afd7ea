package kernel

import (
	"testing"

	"weft/pkg/kstate"
	"weft/pkg/plan"
)

func TestRoundTrip(t *testing.T) {
	w := newWorld(t)
	w.network(1, false, 2)
	w.network(2, true, 2)
	want := w.want()
	for range 2 { // everything may be added again
		for _, it := range sortedAdds(want) {
			w.apply(kstate.Add, it)
		}
		w.check(want)
		if ops := plan.Diff(want, w.observe(want)); len(ops) > 0 {
			t.Errorf("a pass over the wanted state would do something: %v", ops)
		}
	}
}

func TestConverge(t *testing.T) {
	w := newWorld(t)
	w.network(1, false, 2)
	w.network(2, true, 1)
	w.converge()
	w.in.Local = w.in.Local[:1]
	w.in.Snapshot.Endpoints = w.in.Snapshot.Endpoints[:1]
	w.converge()
}
