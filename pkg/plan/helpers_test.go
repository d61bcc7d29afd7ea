package plan

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/pkg/overlay"
)

func TestNetworkMTU(t *testing.T) {
	for _, c := range []struct {
		name      string
		underlay  int
		encrypted bool
		want      int
	}{
		{"plain", 1500, false, 1450},
		{"encrypted", 1500, true, 1370},
		{"plain jumbo", 9000, false, 8950},
		{"encrypted jumbo", 9000, true, 8870},
		{"least plain", 118, false, 68},
		{"too small plain", 117, false, 0},
		{"least encrypted", 198, true, 68},
		{"too small encrypted", 197, true, 0},
		{"none", 0, true, 0},
		{"negative", -1, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := NetworkMTU(c.underlay, c.encrypted); got != c.want {
				t.Errorf("NetworkMTU(%d, %v) = %d, want %d", c.underlay, c.encrypted, got, c.want)
			}
		})
	}
	// An encrypted network's packets fit the WireGuard device that carries them.
	for underlay := 200; underlay < 10000; underlay++ {
		if inner, outer := NetworkMTU(underlay, true)+vxlanOverhead, transitMTU(underlay); inner != outer {
			t.Fatalf("underlay %d: a full VXLAN packet has %d bytes, the WireGuard device carries %d", underlay, inner, outer)
		}
	}
}

func TestOverlaps(t *testing.T) {
	w := newWorld(1)
	for i, name := range []string{"a", "b", "c"} {
		w.network(i, testNetwork(i, name, false))
	}
	gone := testNetwork(1, "gone", false)
	gone.Deleted = epoch
	w.network(1, gone)
	for _, c := range []struct {
		name, prefix string
		except, want []string
	}{
		{"same", "10.0.1.0/24", nil, []string{"b"}},
		{"wider", "10.0.0.0/23", nil, []string{"a", "b"}},
		{"inside", "10.0.2.128/25", nil, []string{"c"}},
		{"beside", "10.0.3.0/24", nil, nil},
		{"but itself", "10.0.0.0/16", []string{"b"}, []string{"a", "c"}},
		{"IPv6", "2001:db8::/64", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Overlaps(prefix(c.prefix), w.snap, c.except...)); diff != "" {
				t.Errorf("networks (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWidest(t *testing.T) {
	for _, c := range []struct {
		name     string
		in, want []string
	}{
		{"none", nil, nil},
		{"one twice", []string{"10.0.0.0/24", "10.0.0.0/24"}, []string{"10.0.0.0/24"}},
		{"neighbours stay two", []string{"10.0.1.0/24", "10.0.0.0/24"}, []string{"10.0.0.0/24", "10.0.1.0/24"}},
		{"contained", []string{"10.0.0.0/24", "10.0.0.0/16", "10.0.9.0/24", "10.1.0.0/16"}, []string{"10.0.0.0/16", "10.1.0.0/16"}},
		{"not masked", []string{"10.0.0.7/24"}, []string{"10.0.0.0/24"}},
		{"IPv6 left out", []string{"2001:db8::/64", "10.0.0.0/24"}, []string{"10.0.0.0/24"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(prefixes(c.want), widest(prefixes(c.in)), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("prefixes (-want +got):\n%s", diff)
			}
		})
	}
	if got := widest([]netip.Prefix{{}}); len(got) > 0 {
		t.Errorf("the zero prefix gives %v", got)
	}
}

func prefixes(ss []string) (out []netip.Prefix) {
	for _, s := range ss {
		out = append(out, prefix(s))
	}
	return out
}

// TestWidestAgainstTwin compares with asking each pair.
func TestWidestAgainstTwin(t *testing.T) {
	random(t, func(t *testing.T, r *rand.Rand) {
		var in, want []netip.Prefix
		for range r.IntN(20) {
			in = append(in, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), byte(r.IntN(4)), 0}), 14+r.IntN(12)).Masked())
		}
		for _, p := range in {
			inside := func(q netip.Prefix) bool { return q.Bits() < p.Bits() && q.Contains(p.Addr()) }
			if !slices.ContainsFunc(in, inside) && !slices.Contains(want, p) {
				want = append(want, p)
			}
		}
		slices.SortFunc(want, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
		if got := widest(in); !slices.Equal(got, want) {
			t.Errorf("widest(%v) = %v, want %v", in, got, want)
		}
	})
}

// TestOneRecordCannotDropANetwork: whatever a single remote record says, this node's own part stays as it is.
func TestOneRecordCannotDropANetwork(t *testing.T) {
	alone, _ := Compute(threeNodes().Input)
	random(t, func(t *testing.T, r *rand.Rand) {
		w := threeNodes()
		node := w.snap.Nodes["n2"]
		node.VTEP = pick(r, node.VTEP, w.Self.VTEP, netip.Addr{}, addr("::1"))
		node.WireGuard = pick(r, nil, node.WireGuard, w.Self.WireGuard)
		node.Underlay = pick(r, nil, node.Underlay, []netip.Addr{{}}, []netip.Addr{addr("::1")}, []netip.Addr{w.Self.Underlay})
		node.VXLANPort = pick[uint16](r, 0, 1, 4789)
		w.snap.Nodes["n2"] = node
		for i := range w.snap.Endpoints {
			if set := &w.snap.Endpoints[i]; set.Node == "n2" {
				set.Router = pick(r, overlay.Router{}, set.Router, w.Self.Routers[set.NetworkID])
				set.Endpoints = append(set.Endpoints, overlay.Endpoint{ID: pick[overlay.EndpointID](r, "", "e1-1"),
					Address: pick(r, netip.Addr{}, addr("10.0.1.2"), addr("10.0.2.2"), addr("10.0.1.1"), addr("fe80::1")),
					MAC:     pick(r, overlay.MAC{}, testMAC(1, 1), overlay.MAC{0xff})})
			}
		}
		got, _ := Compute(w.Input)
		for k, e := range alone.Entries {
			if foreign := mentionsN2(e.Item.String()); !foreign && got.Entries[k] != e {
				t.Errorf("%q became %v", e.Item, got.Entries[k].Item)
			}
		}
	})
}

// mentionsN2 finds what stems from node n2's records in threeNodes.
func mentionsN2(s string) bool {
	n := testNode(2)
	return slices.ContainsFunc([]string{n.VTEP.String(), n.Underlay[0].String(), testMAC(2, 1).String(), testMAC(2, 2).String(),
		testRouter(2, 1).MAC.String(), testRouter(2, 2).MAC.String()}, func(part string) bool { return strings.Contains(s, part) })
}
