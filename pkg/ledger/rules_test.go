package ledger

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"weft/pkg/overlay"
)

// with changes a record for a test.
func with[T any](r T, change func(*T)) T { change(&r); return r }

// TestRules offers records in order, twice: once as they come, once with a restart before each.
func TestRules(t *testing.T) {
	blue := func(rev uint64) overlay.Network { return network("blue", "n1", 1, rev) }
	n1, n2 := at("n1", node("n1", 1)), at("n2", node("n2", 1))
	const under, name = "a record must stand under its own name", "verify"
	for title, offers := range map[string][]offer{
		"nodes": {n1, n2, at("n1", node("n1", 2)), at("n1", node("n1", 100))},
		"older revision": {
			at("n1", node("n1", 5)), at("n1", node("n1", 4)).refused("revision 4, accepted is 5"), at("n1", node("n1", 6))},
		"equal revision, other bytes": {
			at("n1", node("n1", 5)),
			at("n1", with(node("n1", 5), func(n *overlay.Node) { n.Version = "2" })).refused("has the same revision and says something else")},
		"node signed by another": {n1, at("n2", node("n1", 2)).refused("not signed by identity")},
		"node with another identity": {n1, at("n2", with(node("n1", 2), func(n *overlay.Node) { n.Identity = identity("n2").Public() })).
			refused("is not the one first seen")},
		"identity stays pinned after a goodbye": {n1,
			at("n1", with(node("n1", 2), func(n *overlay.Node) { n.Left = time.Unix(1, 0) })),
			at("n2", with(node("n1", 3), func(n *overlay.Node) { n.Identity = identity("n2").Public() })).refused("is not the one first seen"),
			at("n1", node("n1", 3))},
		"node under another's path":  {misplaced("nodes/n2", "", "n1", node("n1", 1)).refused(under), n2},
		"node at a removal's path":   {offer{"removed/n1", n1.value, "decode"}.refused("removed/n1")},
		"node invalid":               {at("n1", with(node("n1", 1), func(n *overlay.Node) { n.Underlay = nil })).refused("underlay")},
		"other cluster":              {misplaced("", "other", "n1", node("n1", 1)).refused("not signed by identity"), n1},
		"moved to another path":      {n1, offer{path: "nodes/n3", value: n1.value}.refused(under)},
		"no record's path":           {offer{path: "vnis/8388608", value: n1.value}.refused("holds no record")},
		"path with an empty part":    {offer{path: "endpoints//blue", value: n1.value}.refused("holds no record")},
		"not JSON":                   {offer{path: "nodes/n1", value: []byte("x")}.refused("read record")},
		"network":                    {n1, at("n1", blue(1)), at("n1", with(blue(2), func(n *overlay.Network) { n.MTU = 1300 }))},
		"network signed by others":   {n1, n2, at("n2", blue(1)).refused("not signed by identity")},
		"next signed by another":     {n1, n2, at("n1", blue(1)), at("n2", with(blue(2), func(n *overlay.Network) { n.Signer = "n2" }))},
		"signer that left":           {at("n1", with(node("n1", 1), func(n *overlay.Node) { n.Left = time.Unix(1, 0) })), at("n1", blue(1))},
		"network under another path": {n1, misplaced("networks/green", "", "n1", blue(1)).refused(under)},
		"network moved":              {n1, at("n1", blue(1)), offer{path: "networks/green", value: at("n1", blue(1)).value}.refused(under)},
		"VNI changed": {n1, at("n1", blue(1)),
			at("n1", with(blue(2), func(n *overlay.Network) { n.VNI++ })).refused("cannot change")},
		"encryption switched off": {n1, at("n1", blue(1)),
			at("n1", with(blue(2), func(n *overlay.Network) { n.Encrypted = false })).refused("cannot change")},
		"subnet changed": {n1, at("n1", blue(1)), at("n1", with(blue(2), func(n *overlay.Network) {
			n.Subnets = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/25")}
		})).refused("cannot change")},
		"id changed":              {n1, at("n1", blue(1)), at("n1", network("blue", "n1", 2, 2)).refused("was not deleted")},
		"id changed by deletion":  {n1, at("n1", blue(1)), at("n1", deleted(network("blue", "n1", 2, 2))).refused("was not deleted")},
		"deleted":                 {n1, at("n1", blue(1)), at("n1", deleted(blue(2)))},
		"deletion seen first":     {n1, at("n1", deleted(blue(2))), at("n1", blue(1)).refused("accepted is 2")},
		"deletion that changes":   {n1, at("n1", blue(1)), at("n1", deleted(with(blue(2), func(n *overlay.Network) { n.VNI++ }))).refused("cannot change")},
		"deleted, then made anew": {n1, at("n1", blue(1)), at("n1", deleted(blue(2))), at("n1", network("blue", "n1", 2, 3))},
		"deleted, then back":      {n1, at("n1", blue(1)), at("n1", deleted(blue(2))), at("n1", blue(3)).refused("does not come back")},
		"deleted, then back under another name": {n1, at("n1", blue(1)), at("n1", deleted(blue(2))),
			at("n1", with(blue(1), func(n *overlay.Network) { n.Name, n.Encrypted = "green", false })).refused("id 000000000001 belongs to network blue")},
		"replaced, then back": {n1, at("n1", deleted(blue(2))), at("n1", network("blue", "n1", 2, 3)), at("n1", deleted(network("blue", "n1", 2, 4))),
			at("n1", blue(5)).refused("does not come back")},
		"replaced, then back under another name": {n1, at("n1", deleted(blue(2))), at("n1", network("blue", "n1", 2, 3)),
			at("n1", with(blue(1), func(n *overlay.Network) { n.Name, n.Encrypted = "green", false })).refused("does not come back")},
		"VNI of another network": {n1, at("n1", blue(1)),
			at("n1", with(network("green", "n1", 2, 1), func(n *overlay.Network) { n.VNI = blue(1).VNI })).refused("VNI 8388609 belongs to network blue")},
		"id of another network": {n1, at("n1", blue(1)),
			at("n1", with(network("green", "n1", 2, 1), func(n *overlay.Network) { n.ID = blue(1).ID })).refused("belongs to network blue")},
		"endpoints":                {n1, at("n1", endpoints("n1", "blue", 1, 1)), at("n1", endpoints("n1", "blue", 1, 2))},
		"endpoints older":          {n1, at("n1", endpoints("n1", "blue", 1, 2)), at("n1", endpoints("n1", "blue", 1, 1)).refused("accepted is 2")},
		"endpoints of another":     {n1, n2, at("n2", endpoints("n1", "blue", 1, 1)).refused("not signed by identity")},
		"endpoints under another":  {n1, n2, misplaced("endpoints/n2/blue", "", "n1", endpoints("n1", "blue", 1, 1)).refused(under)},
		"endpoints of another net": {n1, misplaced("endpoints/n1/green", "", "n1", endpoints("n1", "blue", 1, 1)).refused(under)},
		"endpoints posing": {n1, n2,
			misplaced("endpoints/n1/blue", "", "n2", endpoints("n2", "blue", 1, 1)).refused(under)},
		"removal":                     {n1, n2, at("n2", removal("n1", "n2", 1, 1)), at("n2", removal("n1", "n2", 2, 2))},
		"removal of another identity": {n1, n2, at("n2", with(removal("n1", "n2", 1, 1), func(r *overlay.Removal) { r.Identity = identity("n3").Public() })).refused("it removes identity")},
		"removal signed by others":    {n1, n2, at("n1", removal("n1", "n2", 1, 1)).refused("not signed by identity")},
		"removal of itself":           {n1, at("n1", removal("n1", "n1", 1, 1)).refused("its own record")},
		"removal under another":       {n1, n2, misplaced("removed/n3", "", "n2", removal("n1", "n2", 1, 1)).refused(under)},
		"removal replayed":            {n1, n2, at("n2", removal("n1", "n2", 2, 2)), at("n2", removal("n1", "n2", 1, 1)).refused("accepted is 2")},
	} {
		t.Run(title, func(t *testing.T) {
			l := New(cluster)
			for _, o := range offers {
				o.to(t, l)
			}
		})
		t.Run(title+"/restarted", func(t *testing.T) {
			l := New(cluster)
			for _, o := range offers {
				l = reload(t, l)
				o.to(t, l)
			}
			reload(t, l)
		})
	}
}

func TestErrors(t *testing.T) {
	l := New(cluster)
	at("n1", node("n1", 2)).to(t, l)
	o := at("n1", node("n1", 1))
	if _, err := l.Offer(o.path, o.value); !errors.Is(err, ErrOlder) || errors.Is(err, ErrEqual) {
		t.Errorf("error is %v, want ErrOlder in it and not ErrEqual", err)
	}
	o = at("n1", with(node("n1", 2), func(n *overlay.Node) { n.Version = "2" }))
	if _, err := l.Offer(o.path, o.value); !errors.Is(err, ErrOlder) || !errors.Is(err, ErrEqual) {
		t.Errorf("error is %v, want both ErrOlder and ErrEqual in it", err)
	}
	o = at("n2", node("n1", 3))
	if _, err := l.Offer(o.path, o.value); !errors.Is(err, os.ErrPermission) {
		t.Errorf("error is %v, want os.ErrPermission in it", err)
	}
	// The accepted value is there again: nothing is wrong any more.
	have, ok := l.Get("nodes/n1")
	if changed, err := l.Offer(have.Path, have.Value); !ok || changed || err != nil || len(l.Rejected()) != 0 {
		t.Errorf("changed %v, error %v, rejected %v", changed, err, l.Rejected())
	}
	if l.Revision("nodes/n1") != 2 || l.Revision("nodes/n9") != 0 {
		t.Error("revisions are wrong")
	}
}

// What is signed by a node that is not known waits for it; a removal of a node makes its records no worse.
func TestPending(t *testing.T) {
	for _, restart := range []bool{false, true} {
		l := New(cluster)
		at("n1", network("blue", "n1", 1, 1)).refused("not known (yet)").to(t, l)
		at("n1", endpoints("n1", "blue", 1, 1)).refused("not known (yet)").to(t, l)
		at("n1", removal("n2", "n1", 1, 1)).refused("not known (yet)").to(t, l)
		at("n2", node("n2", 1)).to(t, l)
		if len(l.Rejected()) != 3 {
			t.Errorf("rejected: %v", l.Rejected())
		}
		if restart { // what waits is not kept: it is read again
			l = reload(t, l)
			if len(l.Rejected()) != 0 {
				t.Errorf("rejected: %v", l.Rejected())
			}
			continue
		}
		at("n1", node("n1", 1)).to(t, l)
		s := l.Snapshot(true)
		if len(l.Rejected()) != 0 || len(s.Networks) != 1 || len(s.Endpoints) != 1 || s.Nodes["n2"].Present() {
			t.Errorf("rejected %v, snapshot %+v", l.Rejected(), s)
		}
		reload(t, l)
	}
}

// A pending record that turns out to be forged stays refused.
func TestPendingForged(t *testing.T) {
	l := New(cluster)
	at("n2", network("blue", "n1", 1, 1)).refused("not known (yet)").to(t, l)
	at("n1", node("n1", 1)).to(t, l)
	if s := l.Snapshot(true); len(s.Networks) != 0 || l.Rejected()["networks/blue"] == "" {
		t.Errorf("rejected %v, networks %v", l.Rejected(), s.Networks)
	}
}

// A network that waits for another one's VNI is accepted with that one's deletion, in whatever order they are read.
func TestPendingVNI(t *testing.T) {
	l := New(cluster)
	at("n1", node("n1", 1)).to(t, l)
	at("n1", network("blue", "n1", 1, 1)).to(t, l)
	at("n1", with(network("amber", "n1", 2, 1), func(n *overlay.Network) { n.VNI = network("blue", "", 1, 1).VNI })).refused("belongs to network blue").to(t, l)
	at("n1", deleted(network("blue", "n1", 1, 2))).to(t, l)
	if s := l.Snapshot(true); !s.Networks["amber"].Alive() || len(l.Rejected()) != 0 || s.Networks["amber"].Name == "" {
		t.Errorf("rejected %v, networks %v", l.Rejected(), s.Networks)
	}
}

func TestRemovalAndReturn(t *testing.T) {
	l := New(cluster)
	at("n1", node("n1", 3)).to(t, l)
	at("n2", node("n2", 1)).to(t, l)
	at("n1", endpoints("n1", "blue", 1, 1)).to(t, l)
	present := func(want bool) {
		t.Helper()
		if got := l.Snapshot(true).Nodes["n1"].Present(); got != want {
			t.Errorf("present is %v, want %v", got, want)
		}
		l = reload(t, l)
		if got := l.Snapshot(true).Nodes["n1"].Present(); got != want {
			t.Errorf("present is %v after a restart, want %v", got, want)
		}
	}
	present(true)
	at("n2", removal("n1", "n2", 2, 1)).to(t, l)
	present(true) // it speaks of an older revision
	at("n2", removal("n1", "n2", 3, 2)).to(t, l)
	present(false)
	at("n1", node("n1", 4)).to(t, l)
	present(true)
	at("n2", removal("n1", "n2", 9, 3)).to(t, l)
	present(false)
	at("n1", node("n1", 9)).to(t, l)
	present(false)
	at("n1", node("n1", 10)).to(t, l)
	present(true)
}

// A removal that arrives before the node waits for it, and counts only for the identity that it names.
func TestRemovalFirst(t *testing.T) {
	l := New(cluster)
	at("n2", node("n2", 1)).to(t, l)
	at("n2", with(removal("n1", "n2", 9, 1), func(r *overlay.Removal) { r.Identity = identity("other").Public() })).
		refused("which is not known (yet)").to(t, l)
	at("n2", removal("n3", "n2", 9, 1)).refused("which is not known (yet)").to(t, l)
	at("n1", node("n1", 1)).to(t, l)
	at("n3", node("n3", 1)).to(t, l)
	if s := l.Snapshot(true); !s.Nodes["n1"].Present() || s.Nodes["n3"].Present() {
		t.Errorf("n1 present %v, n3 present %v", s.Nodes["n1"].Present(), s.Nodes["n3"].Present())
	}
}

// A pin that was set beforehand holds against whoever is first in the store, and outlives a restart.
func TestPin(t *testing.T) {
	l := New(cluster)
	l.Self("n1", identity("n1").Public())
	l = reload(t, l)
	at("n2", with(node("n1", 9), func(n *overlay.Node) { n.Identity = identity("n2").Public() })).refused("is not the one first seen").to(t, l)
	at("n1", node("n1", 1)).to(t, l)
}

// A removed node's name may get another identity; what the old one said is gone, and its revisions are the floor.
func TestNameGivenFree(t *testing.T) {
	anew := func(rev uint64) overlay.Node {
		return with(node("n1", rev), func(n *overlay.Node) { n.Identity = identity("anew").Public() })
	}
	l := New(cluster)
	at("n1", node("n1", 3)).to(t, l)
	at("n2", node("n2", 1)).to(t, l)
	at("n1", endpoints("n1", "blue", 1, 4)).to(t, l)
	at("anew", anew(4)).refused("is not the one first seen").to(t, l)
	at("n2", removal("n1", "n2", 3, 1)).to(t, l)
	at("anew", anew(3)).refused("revision 3").to(t, l)
	at("anew", anew(4)).to(t, l)
	l = reload(t, l)
	if s := l.Snapshot(true); !s.Nodes["n1"].Present() || s.Nodes["n1"].Identity != identity("anew").Public() || len(s.Endpoints) != 0 {
		t.Errorf("n1 is %+v with %d sets", s.Nodes["n1"], len(s.Endpoints))
	}
	at("n1", node("n1", 5)).refused("is not the one first seen").to(t, l)
	at("n1", endpoints("n1", "blue", 1, 5)).refused("not signed by").to(t, l)
	at("anew", endpoints("n1", "blue", 1, 4)).refused("revision 4").to(t, l)
	at("anew", endpoints("n1", "blue", 1, 5)).to(t, l)
}

// Whoever can write Consul cannot take over the place of a node that was accepted: its VTEP address and keys are its own
// while it is present.
func TestClaimedPlace(t *testing.T) {
	l := New(cluster)
	at("n3", node("n3", 1)).to(t, l)
	thief := with(node("0", 1), func(n *overlay.Node) { n.VTEP = node("n3", 1).VTEP })
	at("0", thief).refused("VTEP").to(t, l)
	at("0", with(node("0", 1), func(n *overlay.Node) { n.WireGuard = node("n3", 1).WireGuard })).refused("WireGuard key").to(t, l)
	l = reload(t, l)
	at("0", thief).refused("VTEP").to(t, l)
	at("n2", node("n2", 1)).to(t, l)
	at("n2", removal("n3", "n2", 1, 1)).to(t, l) // now the address is free, and the waiting record counts
	if _, ok := l.Snapshot(true).Nodes["0"]; !ok {
		t.Error("the record that waited for the address is not accepted")
	}
	at("n3", node("n3", 2)).refused("VTEP").to(t, l) // and n3 has to look for another
}

func TestOwner(t *testing.T) {
	for path, want := range map[string]string{"nodes/n1": "n1", "endpoints/n1/blue": "n1", "networks/blue": "", "removed/n1": "", "": "",
		"nodes/n1/x": "", "endpoints/n1": ""} {
		if got := Owner(path); got != want {
			t.Errorf("Owner(%q) = %q, want %q", path, got, want)
		}
	}
}
