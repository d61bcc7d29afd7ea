package plan

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

var rounds = flag.Uint64("rounds", 120, "random worlds that each property is tried on")

// random runs f with many seeds and names the one that failed.
func random(t *testing.T, f func(t *testing.T, r *rand.Rand)) {
	n := *rounds
	if testing.Short() {
		n /= 10
	}
	for seed := range n {
		f(t, rand.New(rand.NewPCG(seed, 1)))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// checkOrder asserts the order of one list: adds and changes by rising stage, so every fence before every link; then
// removals by falling stage; and a removal that comes early is in the stage of what follows it.
func checkOrder(t *testing.T, ops []kstate.Op) {
	t.Helper()
	last := -1
	for i, op := range ops {
		if op.Verb != kstate.Remove {
			last = i
		}
	}
	stage := kstate.StageNamespace
	for i, op := range ops[:last+1] {
		s := op.Item.Stage()
		if s < stage {
			t.Errorf("op %d %q is of stage %s, after one of stage %s", i, op, s, stage)
		}
		stage = s
		if op.Verb == kstate.Remove && s != ops[i+1].Item.Stage() {
			t.Errorf("op %d %q is removed early, but not for the next one, %q", i, op, ops[i+1])
		}
	}
	stage = kstate.StageRoute
	for i, op := range ops[last+1:] {
		if s := op.Item.Stage(); s > stage {
			t.Errorf("removal %d %q is of stage %s, after one of stage %s", i, op, s, stage)
		} else {
			stage = s
		}
	}
}

// stays reports whether an item that is not wanted may outlive a pass with full right to prune.
func stays(it kstate.Item) bool {
	up, isUp := it.(kstate.Up)
	_, isSysctl := it.(kstate.Sysctl)
	return isSysctl || isUp && up.Link == "lo"
}

// reach applies Diff and asserts that want is there and nothing else.
func reach(t *testing.T, f *fakeKernel, want *kstate.State) {
	t.Helper()
	have := f.state()
	ops := Diff(want, have)
	checkOrder(t, ops)
	for _, op := range ops {
		if err := f.apply(op); err != nil {
			t.Fatalf("apply %v\nin\n%s", err, opsText(ops))
		}
	}
	for k, w := range want.Entries {
		if h, ok := f.items[k]; !ok || !kstate.Same(w.Item, h.Item) {
			t.Errorf("%v: %q is wanted, there is %v\nafter\n%s", k, w.Item, h.Item, opsText(ops))
		}
	}
	for k, h := range f.items {
		if !want.Has(k) && !stays(h.Item) {
			t.Errorf("%v: %q is left over\nafter\n%s", k, h.Item, opsText(ops))
		}
	}
	if again := Diff(want, f.state()); len(again) > 0 {
		t.Errorf("a second pass does\n%safter\n%s", opsText(again), opsText(ops))
	}
}

// TestWalk goes from state to state in random order, with damage in between.
func TestWalk(t *testing.T) {
	random(t, func(t *testing.T, r *rand.Rand) {
		var wants []*kstate.State
		for range 4 {
			want, _ := Compute(randomInput(r))
			wants = append(wants, want)
		}
		f := newFake(kstate.NewState())
		for range 8 {
			reach(t, f, pick(r, wants...))
			damage(r, f, true)
		}
		reach(t, f, wants[0])
		reach(t, f, empty(true))
	})
}

// empty wants nothing.
func empty(prune bool) *kstate.State {
	s := kstate.NewState()
	s.Prune[""] = prune
	return s
}

func TestDiffOfEqualStatesIsEmpty(t *testing.T) {
	random(t, func(t *testing.T, r *rand.Rand) {
		want, _ := Compute(randomInput(r))
		if ops := Diff(want, want); len(ops) > 0 {
			t.Errorf("Diff(x, x) =\n%s", opsText(ops))
		}
	})
}

// TestFrozen: with an incomplete snapshot, or one that misses the record of a network, what may not be removed is there
// after the pass. An add may then be refused because something frozen is in its way.
func TestFrozen(t *testing.T) {
	random(t, func(t *testing.T, r *rand.Rand) {
		before, _ := Compute(randomInput(r))
		f := newFake(kstate.NewState())
		reach(t, f, before)
		damage(r, f, false)
		in := randomInput(r)
		incomplete := one(r, 2)
		if incomplete {
			in.Snapshot.Complete = false
		}
		lost := map[overlay.NetworkID]bool{}
		for name, n := range in.Snapshot.Networks {
			if one(r, 2) {
				lost[n.ID] = true
				delete(in.Snapshot.Networks, name)
			}
		}
		want, _ := Compute(in)
		have := f.state()
		ops := Diff(want, have)
		checkOrder(t, ops)
		refused := map[string]bool{} // namespaces in which a link could not be made again
		for _, op := range ops {
			err := f.apply(op)
			if l, ok := op.Item.(kstate.Link); ok && errors.Is(err, errExists) {
				refused[l.NS], refused[l.PeerNS] = true, l.Kind == kstate.KindVeth
			} else if err != nil && !refused[op.Item.Key().NS] {
				t.Fatalf("apply %v\nin\n%s", err, opsText(ops))
			}
		}
		for k, h := range have.Entries {
			if !frozen(in, lost, have, h.Item, incomplete) || f.items[k].Item != nil || refused[k.NS] || renamed(f, h.Item) || covered(f, h.Item) {
				continue
			}
			t.Errorf("frozen %v %q is gone after\n%s", k, h.Item, opsText(ops))
		}
	})
}

// frozen says, by other means than Diff, that an item must outlive the pass. Absence from Local is this node's own word:
// the port of an endpoint that is detached may end with its namespace, also on a frozen network.
func frozen(in Input, lost map[overlay.NetworkID]bool, have *kstate.State, it kstate.Item, incomplete bool) bool {
	if incomplete {
		return true
	}
	name := it.On()
	if l, ok := it.(kstate.Link); ok {
		name = l.Name
	}
	port, _ := have.Entries[kstate.Link{NS: it.Key().NS, Name: name}.Key()].Item.(kstate.Link)
	here, hasPort := false, !strings.HasPrefix(port.PeerNS, kstate.EndpointPrefix)
	for _, e := range in.Local {
		if e.Leaving || !lost[e.NetworkID] {
			continue
		}
		here = here || it.Key().NS == kstate.NetworkNS(e.NetworkID)
		hasPort = hasPort || port.PeerNS == kstate.EndpointNS(e.ID)
	}
	return here && hasPort
}

// renamed reports whether a veth that is wanted with another far end has taken an item's link away.
func renamed(f *fakeKernel, it kstate.Item) bool {
	return it.On() != "" && !f.hasLink(it.Key().NS, it.On())
}

// covered reports whether a range is inside a wider one that took its place.
func covered(f *fakeKernel, it kstate.Item) bool {
	e, ok := it.(kstate.Elem)
	return ok && e.Set == "subnets" && f.free(e) != nil
}

// TestFrozenRemovesNothing: without the right to prune every removal is half of a replacement.
func TestFrozenRemovesNothing(t *testing.T) {
	random(t, func(t *testing.T, r *rand.Rand) {
		before, _ := Compute(randomInput(r))
		f := newFake(before)
		damage(r, f, false)
		in := randomInput(r)
		in.Snapshot.Complete = false
		want, _ := Compute(in)
		ops := Diff(want, f.state())
		for i, op := range ops {
			if op.Verb != kstate.Remove || i+1 < len(ops) && ops[i+1].Item.Key() == op.Item.Key() {
				continue
			}
			again := slices.ContainsFunc(ops[i+1:], func(o kstate.Op) bool { return o.Item.Key() == op.Item.Key() })
			if e, ok := op.Item.(kstate.Elem); !again && !(ok && e.Set == "subnets") {
				t.Errorf("a frozen pass removes %q:\n%s", op, opsText(ops))
			}
		}
	})
}

// TestDeterministic: neither maps nor the order of the input's lists show in the result.
func TestDeterministic(t *testing.T) {
	random(t, func(t *testing.T, r *rand.Rand) {
		in := randomInput(r)
		other := shuffled(r, in)
		want, problems := Compute(in)
		again, problems2 := Compute(other)
		if diff := cmp.Diff(text(want, problems), text(again, problems2)); diff != "" {
			t.Errorf("shuffled input gives another state (-first +second):\n%s", diff)
		}
		if !maps.Equal(want.Entries, again.Entries) {
			t.Error("shuffled input gives other entries")
		}
		f := newFake(want)
		damage(r, f, true)
		next, _ := Compute(randomInput(r))
		if diff := cmp.Diff(traced(Diff(next, f.state())), traced(Diff(next, f.state()))); diff != "" {
			t.Errorf("Diff gives another list (-first +second):\n%s", diff)
		}
	})
}

// traced is the text of operations with their groups.
func traced(ops []kstate.Op) (out []string) {
	for _, op := range ops {
		out = append(out, fmt.Sprintf("%s [%s]", op, op.Group))
	}
	return out
}

func shuffled(r *rand.Rand, in Input) Input {
	mix := func(n int, swap func(i, j int)) { r.Shuffle(n, swap) }
	in.Local = slices.Clone(in.Local)
	mix(len(in.Local), func(i, j int) { in.Local[i], in.Local[j] = in.Local[j], in.Local[i] })
	snap := *in.Snapshot
	snap.Nodes, snap.Networks = maps.Clone(snap.Nodes), maps.Clone(snap.Networks)
	snap.Endpoints = slices.Clone(snap.Endpoints)
	for i := range snap.Endpoints {
		es := slices.Clone(snap.Endpoints[i].Endpoints)
		mix(len(es), func(i, j int) { es[i], es[j] = es[j], es[i] })
		snap.Endpoints[i].Endpoints = es
	}
	mix(len(snap.Endpoints), func(i, j int) { snap.Endpoints[i], snap.Endpoints[j] = snap.Endpoints[j], snap.Endpoints[i] })
	in.Snapshot = &snap
	return in
}

// TestComputeKeepsInput: Compute only reads.
func TestComputeKeepsInput(t *testing.T) {
	random(t, func(t *testing.T, r *rand.Rand) {
		in := randomInput(r)
		before := fmt.Sprintf("%+v %+v", in.Self, *in.Snapshot) + fmt.Sprintf("%+v", in.Local)
		Compute(in)
		if after := fmt.Sprintf("%+v %+v", in.Self, *in.Snapshot) + fmt.Sprintf("%+v", in.Local); after != before {
			t.Errorf("Compute changed its input:\n%s\n%s", before, after)
		}
	})
}
