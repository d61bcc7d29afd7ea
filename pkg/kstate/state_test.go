package kstate

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
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

// stateOf puts items in the given order.
func stateOf(items []Item) *State {
	s := NewState()
	for _, it := range items {
		s.Put("g", it)
	}
	return s
}

// TestText: the text form of every kind of item, the same in whatever order they were put.
func TestText(t *testing.T) {
	items := sample()
	golden(t, "items.golden", stateOf(items).String())
	slices.Reverse(items)
	golden(t, "items.golden", stateOf(items).String())
	if got := NewState().String(); got != "" {
		t.Errorf("the empty state prints %q", got)
	}
}

func TestOpText(t *testing.T) {
	fdb := FDB{NS: "weft-n-a", Link: VXLAN, MAC: mac, Dst: vtep}
	old := fdb
	old.Dst = vtep2
	for _, c := range []struct {
		op   Op
		want string
	}{
		{Op{Verb: Add, Item: fdb}, "add weft-n-a fdb 02:00:00:00:00:01 dev vxlan0 self dst 100.64.0.1"},
		{Op{Verb: Remove, Item: Up{Link: "weftx0"}}, "remove (host) up weftx0"},
		{Op{Verb: Set, Item: fdb, Old: old}, "set weft-n-a fdb 02:00:00:00:00:01 dev vxlan0 self dst 100.64.0.1" +
			"   # was fdb 02:00:00:00:00:01 dev vxlan0 self dst 100.64.0.2"},
		{Op{Verb: Set, Item: fdb}, "set weft-n-a fdb 02:00:00:00:00:01 dev vxlan0 self dst 100.64.0.1"},
	} {
		if got := c.op.String(); got != c.want {
			t.Errorf("Op.String() =\n%s, want\n%s", got, c.want)
		}
	}
}

// TestKeysAreUnique: different objects never share a key, and one key is one line of text.
func TestKeysAreUnique(t *testing.T) {
	seen := map[Key]Item{}
	for _, it := range sample() {
		if other, dup := seen[it.Key()]; dup {
			t.Errorf("%q and %q share the key %v", it, other, it.Key())
		}
		seen[it.Key()] = it
	}
	if s := stateOf(sample()); len(s.Entries) != len(sample()) {
		t.Errorf("%d items make %d entries", len(sample()), len(s.Entries))
	}
}

// TestKeysHoldWhatIdentifies: a change of what is configured keeps the key, so that Diff sees a change.
func TestKeysHoldWhatIdentifies(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b Item
		same bool
	}{
		{"sysctl value", Sysctl{Path: "a", Value: "0"}, Sysctl{Path: "a", Value: "1"}, true},
		{"rules", Chain{Name: "a", Rules: "x"}, Chain{Name: "a"}, true},
		{"family", Chain{Name: "a", Family: Inet}, Chain{Name: "a", Family: BridgeFamily}, false},
		{"fdb destination", FDB{Link: "a", Dst: vtep}, FDB{Link: "a", Dst: vtep2}, true},
		{"fdb kind", FDB{Link: "a", Dst: vtep}, FDB{Link: "a", Master: true}, false},
		{"neighbour MAC", Neigh{Link: "a", IP: vtep, MAC: mac}, Neigh{Link: "a", IP: vtep}, true},
		{"port flags", Port{Link: "a", Locked: true}, Port{Link: "a"}, true},
		{"route device", Route{Link: "a"}, Route{Link: "b"}, true},
		{"address device", Addr{Link: "a"}, Addr{Link: "b"}, false},
		{"peer endpoint", WGPeer{Device: "a", Keepalive: 1}, WGPeer{Device: "a"}, true},
		{"peer device", WGPeer{Device: "a"}, WGPeer{Device: "b"}, false},
		{"device key", WGDevice{Name: "a", PublicKey: key}, WGDevice{Name: "a"}, true},
		{"element", Elem{Set: "a", Value: "1"}, Elem{Set: "a", Value: "2"}, false},
		{"set type", NFSet{Name: "a", Type: "vni"}, NFSet{Name: "a"}, true},
		{"namespace", Up{NS: "a", Link: "x"}, Up{NS: "b", Link: "x"}, false},
	} {
		if got := c.a.Key() == c.b.Key(); got != c.same {
			t.Errorf("%s: same key %v, want %v", c.name, got, c.same)
		}
	}
}

// TestSortedStartsWithFences: within a namespace items come by stage, and in the fence stage tables before sets before
// elements before chains.
func TestSortedStartsWithFences(t *testing.T) {
	var last Entry
	for i, e := range stateOf(sample()).Sorted() {
		if k := e.Item.Key(); i > 0 && k.NS == last.Item.Key().NS {
			if e.Item.Stage() < last.Item.Stage() {
				t.Errorf("%q comes after %q", e.Item, last.Item)
			}
			if e.Item.Stage() == StageFence && last.Item.Stage() == StageFence && rank(e.Item) < rank(last.Item) {
				t.Errorf("%q comes after %q, which needs it", e.Item, last.Item)
			}
		}
		last = e
	}
}

// rank orders nftables objects by need.
func rank(it Item) int {
	for i, word := range []string{"table", "set", "elem", "chain"} {
		if strings.HasPrefix(it.String(), word+" ") {
			return i
		}
	}
	return 9
}

func TestStages(t *testing.T) {
	for _, it := range sample() {
		if s := it.Stage(); s.String() == "" {
			t.Errorf("%q has a stage without a name", it)
		}
		if on := it.On(); on != "" && it.Stage() < StageWireGuard {
			t.Errorf("%q stands on %s but is made before links are", it, on)
		}
	}
}
