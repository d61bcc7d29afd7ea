package ledger

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"weft/pkg/overlay"
)

// random makes an offer that may or may not be acceptable.
func random(r *rand.Rand) offer {
	names := []string{"n1", "n2", "n3"}
	pick := func() string { return names[r.IntN(3)] }
	by, of, rev := pick(), pick(), uint64(1+r.IntN(6))
	if r.IntN(4) > 0 {
		by = of
	}
	nets := []string{"blue", "green"}
	net, num := nets[r.IntN(2)], byte(1+r.IntN(3))
	var o offer
	switch r.IntN(5) {
	case 0:
		n := node(of, rev)
		n.Identity = identity(by).Public()
		o = at(by, n)
	case 1:
		o = at(by, endpoints(of, net, num, rev))
	case 2:
		n := network(net, of, num, rev)
		n.Encrypted = r.IntN(4) > 0
		if r.IntN(3) == 0 {
			n = deleted(n)
		}
		o = at(by, n)
	case 3:
		o = at(by, removal(pick(), of, uint64(1+r.IntN(6)), rev))
	default:
		o = at(of, node(of, rev))
	}
	if r.IntN(10) == 0 {
		o.path = []string{"nodes/n1", "networks/blue", "endpoints/n1/blue", "removed/n1"}[r.IntN(4)]
	}
	return o
}

// TestRandomOffers: whatever is offered in whatever order, what was promised of each record, id and pin holds.
func TestRandomOffers(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			l := New(cluster)
			before := map[string]Record{}
			pins := map[string]any{}
			fixed := map[overlay.NetworkID]string{} // what must not change about an id
			dead := map[overlay.NetworkID]bool{}
			for range 200 {
				if r.IntN(50) == 0 {
					l = reload(t, l)
				}
				o := random(r)
				snap := l.Snapshot(true)
				changed, err := l.Offer(o.path, o.value)
				if changed && err != nil {
					t.Fatal("changed and refused")
				}
				if !changed {
					same(t, snap, l.Snapshot(true))
				}
				for path, rec := range before {
					if got, ok := l.Get(path); !ok || got.Revision < rec.Revision || got.Revision == rec.Revision && string(got.Value) != string(rec.Value) {
						t.Fatalf("%s went from revision %d to %d", path, rec.Revision, got.Revision)
					}
				}
				for path, rec := range l.records {
					before[path] = rec
				}
				for name, n := range l.Snapshot(true).Nodes {
					was, known := snap.Nodes[name]
					if pin, ok := pins[name]; ok && pin != any(n.Identity) && (!known || was.Present()) {
						t.Fatalf("identity of %s changed, and nobody had removed it", name)
					}
					pins[name] = n.Identity
				}
				vnis := map[overlay.VNI]bool{}
				for _, n := range l.Snapshot(true).Networks {
					is := fmt.Sprint(n.Name, n.VNI, n.Subnets, n.Encrypted)
					if was, ok := fixed[n.ID]; ok && was != is {
						t.Fatalf("network %s was %s, is %s", n.ID, was, is)
					}
					if dead[n.ID] && n.Alive() {
						t.Fatalf("network %s came back", n.ID)
					}
					fixed[n.ID] = is
					if n.Alive() && vnis[n.VNI] {
						t.Fatalf("VNI %d is there twice", n.VNI)
					}
					vnis[n.VNI] = vnis[n.VNI] || n.Alive()
					dead[n.ID] = !n.Alive()
				}
			}
		})
	}
}

// FuzzOffer: no path and no bytes make Offer panic, or change anything when it refuses them.
func FuzzOffer(f *testing.F) {
	l := full(f)
	for path, r := range l.records {
		f.Add(path, r.Value)
		f.Add(path, []byte(`{"revision": 9}`))
	}
	for _, o := range []offer{at("n1", node("n1", 3)), at("n1", deleted(network("blue", "n1", 1, 4))), at("n2", removal("n1", "n2", 9, 1))} {
		f.Add(o.path, o.value)
	}
	f.Add("endpoints//", []byte{})
	f.Add("", []byte(nil))
	f.Fuzz(func(t *testing.T, path string, value []byte) {
		before := l.Snapshot(true)
		changed, err := l.Offer(path, value)
		if changed && err != nil {
			t.Error("changed and refused")
		}
		_, _ = l.Rejected(), Owner(path)
		if changed {
			reload(t, l)
			l = full(t) // each input meets the same ledger
			return
		}
		same(t, before, l.Snapshot(true))
		l.rejected = map[string]rejection{}
	})
}

// FuzzLoad: no file makes Load panic, and what it takes survives being written.
func FuzzLoad(f *testing.F) {
	data, err := full(f).MarshalJSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"cluster": "c", "pins": null, "records": [{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Load(data)
		if l == nil {
			if err == nil {
				t.Error("neither a ledger nor an error")
			}
			return
		}
		reload(t, l)
	})
}
