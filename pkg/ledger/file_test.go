package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"weft/pkg/overlay"
)

// full is a ledger with a record of every kind.
func full(t testing.TB) *Ledger {
	t.Helper()
	l := New(cluster)
	for _, o := range []offer{at("n1", node("n1", 2)), at("n2", node("n2", 1)), at("n1", network("blue", "n1", 1, 3)),
		at("n2", endpoints("n2", "blue", 1, 4)), at("n1", removal("n2", "n1", 1, 1))} {
		if _, err := l.Offer(o.path, o.value); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestRoundTrip(t *testing.T) {
	l := full(t)
	again := reload(t, l)
	for _, path := range []string{"nodes/n1", "nodes/n2", "networks/blue", "endpoints/n2/blue", "removed/n2"} {
		want, _ := l.Get(path)
		got, ok := again.Get(path)
		if !ok || got.Revision != want.Revision || !bytes.Equal(got.Value, want.Value) || got.Path != path {
			t.Errorf("%s is %+v after a restart, was %+v", path, got, want)
		}
	}
	// Pins outlive the restart, and with them what older revisions could do.
	at("n1", node("n1", 1)).refused("accepted is 2").to(t, again)
	at("n1", network("blue", "n1", 1, 2)).refused("accepted is 3").to(t, again)
	at("n2", endpoints("n2", "blue", 1, 3)).refused("accepted is 4").to(t, again)
}

// edit changes the file's form as an editor would.
func edit(t *testing.T, l *Ledger, change func(*file)) []byte {
	t.Helper()
	data, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	change(&f)
	if data, err = json.Marshal(f); err != nil {
		t.Fatal(err)
	}
	return data
}

// TestTampered: a record that does not verify is reported and not used, the others are.
func TestTampered(t *testing.T) {
	record := func(path string, change func(*Record)) func(*file) {
		return func(f *file) {
			for i := range f.Records {
				if f.Records[i].Path == path {
					change(&f.Records[i])
				}
			}
		}
	}
	for name, tc := range map[string]struct {
		change func(*file)
		lost   []string // paths
		err    string
	}{
		"nothing": {func(*file) {}, nil, ""},
		"a byte": {record("networks/blue", func(r *Record) { r.Value = bytes.Replace(r.Value, []byte("1370"), []byte("1371"), 1) }),
			[]string{"networks/blue"}, "not signed by identity"},
		"path":                      {record("nodes/n1", func(r *Record) { r.Path = "nodes/n3" }), []string{"nodes/n1"}, "its own name"},
		"revision counts as signed": {record("networks/blue", func(r *Record) { r.Revision = 99 }), nil, ""},
		"not JSON":                  {record("endpoints/n2/blue", func(r *Record) { r.Value = []byte("{") }), []string{"endpoints/n2/blue"}, "read record"},
		"pin":                       {func(f *file) { f.Pins["n1"] = identity("n9").Public() }, []string{"nodes/n1", "networks/blue", "removed/n2"}, "first seen"},
		"no pins":                   {func(f *file) { f.Pins = nil }, nil, ""}, // they come back with the node records
		"cluster": {func(f *file) { f.Cluster = "other" },
			[]string{"nodes/n1", "nodes/n2", "networks/blue", "endpoints/n2/blue", "removed/n2"}, "not signed by identity"},
		"a second value for a path": {func(f *file) {
			f.Records = append(f.Records, Record{Path: "nodes/n1", Value: at("n1", node("n1", 1)).value})
		}, nil, "older"},
	} {
		t.Run(name, func(t *testing.T) {
			l := full(t)
			again, err := Load(edit(t, l, tc.change))
			if again == nil {
				t.Fatal("no ledger: ", err)
			}
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error is %v, want %q in it", err, tc.err)
			}
			lost := map[string]bool{}
			for _, path := range tc.lost {
				lost[path] = true
			}
			for path, r := range l.records {
				got, ok := again.Get(path)
				if ok == lost[path] || ok && got.Revision != r.Revision {
					t.Errorf("%s is there: %v, revision %d", path, ok, got.Revision)
				}
			}
		})
	}
}

func TestLoadGarbage(t *testing.T) {
	for _, data := range []string{"", "x", "[]", `{"pins": {"n1": "AA=="}}`, `{"records": [{"value": 7}]}`} {
		if l, err := Load([]byte(data)); err == nil || l != nil {
			t.Errorf("Load(%q) = %v, %v", data, l, err)
		}
	}
	l, err := Load([]byte("{}"))
	if err != nil || l.Cluster() != "" {
		t.Errorf("Load({}) = %v, %v", l, err)
	}
	if _, err := l.Offer("nodes/n1", at("n1", node("n1", 1)).value); err == nil {
		t.Error("a record was accepted for no cluster")
	}
}

// Whoever writes into the store cannot make the ledger forget: the only way in is Offer, and it never removes.
func TestNothingVanishes(t *testing.T) {
	l := full(t)
	want := l.Snapshot(true)
	for path := range l.records {
		for _, value := range []string{"", "{}", "null", `{"revision": 99}`} {
			if changed, err := l.Offer(path, []byte(value)); changed || err == nil {
				t.Errorf("Offer(%s, %q) = %v, %v", path, value, changed, err)
			}
		}
	}
	same(t, want, l.Snapshot(true))
	if len(l.Rejected()) != len(l.records) {
		t.Errorf("rejected: %v", l.Rejected())
	}
}

func TestSnapshot(t *testing.T) {
	l := full(t)
	at("n1", endpoints("n1", "amber", 2, 1)).to(t, l)
	at("n1", endpoints("n1", "blue", 1, 1)).to(t, l)
	s := l.Snapshot(false)
	var order []string
	for _, set := range s.Endpoints {
		order = append(order, set.Network+"/"+set.Node)
	}
	if got := fmt.Sprint(order); got != "[amber/n1 blue/n1 blue/n2]" {
		t.Errorf("endpoints are ordered %s", got)
	}
	if s.Complete || !l.Snapshot(true).Complete || s.Cluster != cluster {
		t.Error("complete or cluster is wrong")
	}
	delete(s.Nodes, "n1")
	delete(s.Networks, "blue")
	s.Endpoints[0] = overlay.EndpointSet{}
	if again := l.Snapshot(false); len(again.Nodes) != 2 || len(again.Networks) != 1 || again.Endpoints[0].Network != "amber" {
		t.Error("a snapshot shares its maps with the ledger")
	}
}
