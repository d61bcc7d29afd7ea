package ledger

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"weft/keys"
	"weft/pkg/overlay"
)

var trustNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// locked is a ledger of node n0 in a locked cluster, with two signers.
type locked struct {
	t *testing.T
	*Ledger
	root, root2 keys.Identity
}

func newLocked(t *testing.T) *locked {
	l := &locked{t: t, root: identity("root"), root2: identity("root2")}
	l.Ledger = NewWith(cluster, Policy{Locked: true, Signers: []keys.IdentityKey{l.root.Public(), l.root2.Public()}, Self: identity("n0").Public()})
	l.Self("n0", identity("n0").Public())
	l.At(trustNow)
	return l
}

// put seals a record and offers it; want is part of the error, "" for none.
func (l *locked) put(kind, path string, by keys.Identity, record any, want string) {
	l.t.Helper()
	v, err := keys.Envelope{Kind: kind, Cluster: cluster, Path: path}.Seal(by, record)
	if err != nil {
		l.t.Fatal(err)
	}
	_, err = l.Offer(path, v)
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		l.t.Errorf("%s: %v, want %q", path, err, want)
	}
}

func (l *locked) admit(node string, by keys.Identity, slot int, want string) {
	l.t.Helper()
	l.put(KindAdmission, overlay.TrustPath("nodes", node), by, overlay.Admission{Node: node, Identity: identity(node).Public(),
		Admitted: trustNow, Signer: by.Public(), Slot: slot, Revision: l.Revision(overlay.TrustPath("nodes", node)) + 1}, want)
}

func (l *locked) revoke(key keys.IdentityKey, by keys.Identity, want string) {
	l.t.Helper()
	l.put(KindRevocation, overlay.TrustPath("revoked", overlay.KeyPath(key)), by, overlay.Revocation{Key: key, Name: "it", Revoked: trustNow, Signer: by.Public(), Revision: 1}, want)
}

func (l *locked) token(key, by keys.Identity, uses int, expires time.Time, want string) {
	l.t.Helper()
	l.put(KindToken, overlay.TrustPath("tokens", overlay.KeyPath(key.Public())), by, overlay.Token{Key: key.Public(), Uses: uses, Created: expires.Add(-time.Hour), Expires: expires, Signer: by.Public(), Revision: 1}, want)
}

func (l *locked) putNode(name string, want string) {
	l.t.Helper()
	n := node(name, 1)
	l.put(KindNode, "nodes/"+name, identity(name), n, want)
}

func (l *locked) present(names ...string) {
	l.t.Helper()
	s := l.Snapshot(true)
	var got []string
	for _, name := range []string{"n0", "n1", "n2", "n3"} {
		if _, ok := s.Nodes[name]; ok {
			got = append(got, name)
		}
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		l.t.Errorf("nodes %v, want %v", got, names)
	}
}

func TestLockedAdmission(t *testing.T) {
	l := newLocked(t)
	l.putNode("n0", "") // a node believes itself
	l.putNode("n1", "was not admitted by a signer")
	l.present("n0")
	l.admit("n1", identity("stranger"), 0, "is no signer")
	l.admit("n1", identity("n2"), 0, "is no signer")
	l.present("n0")
	l.admit("n1", l.root, 0, "") // what waited is taken by itself
	l.present("n0", "n1")
	data, err := json.Marshal(l.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadWith(data, l.trust.policy)
	if err != nil {
		t.Fatal(err)
	}
	l.Ledger = again
	l.Self("n0", identity("n0").Public())
	l.present("n0", "n1")
	if other, _ := LoadWith(data, Policy{Locked: true, Signers: []keys.IdentityKey{identity("other").Public()}}); len(other.Snapshot(true).Nodes) != 0 {
		t.Error("nodes are believed that other signers admitted")
	}
}

func TestRevocationSticks(t *testing.T) {
	l := newLocked(t)
	l.admit("n1", l.root, 0, "")
	l.putNode("n1", "")
	l.revoke(identity("n1").Public(), identity("n2"), "is no signer")
	l.present("n1")
	l.revoke(identity("n1").Public(), l.root2, "")
	l.present()
	l.admit("n1", l.root, 0, "was revoked")
	n := node("n1", 2)
	l.put(KindNode, "nodes/n1", identity("n1"), n, "was revoked")
	data, err := json.Marshal(l.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	l.Ledger, _ = LoadWith(data, l.trust.policy)
	l.present()
	l.put(KindNode, "nodes/n1", identity("n1"), n, "was revoked")
}

func TestSignerChain(t *testing.T) {
	l := newLocked(t)
	bob := identity("bob")
	add := func(by keys.Identity, want string) {
		l.put(KindSigner, overlay.TrustPath("signers", overlay.KeyPath(bob.Public())), by, overlay.Signer{Key: bob.Public(), Name: "bob", Added: trustNow, Signer: by.Public(), Revision: 1}, want)
	}
	l.admit("n1", bob, 0, "is no signer")
	add(identity("stranger"), "is no signer")
	add(l.root, "")
	l.admit("n1", bob, 0, "")
	l.putNode("n1", "")
	l.present("n1")
	l.revoke(l.root.Public(), bob, "only another such key")
	l.revoke(bob.Public(), l.root2, "")
	l.present() // it goes with who admitted it
	l.admit("n1", l.root, 0, "")
	l.present("n1")
	l.revoke(l.root.Public(), l.root2, "")
	l.present()
}

func TestTokens(t *testing.T) {
	l := newLocked(t)
	tok, late := identity("token"), identity("late")
	l.admit("n1", tok, 1, "is not known")
	l.token(tok, identity("stranger"), 1, trustNow.Add(time.Hour), "is no signer")
	l.token(tok, l.root, 1, trustNow.Add(time.Hour), "")
	l.putNode("n1", "") // the admission waited for the token
	l.admit("n2", tok, 1, "is taken by node n1")
	l.admit("n2", tok, 2, "made for 1 uses")
	l.token(late, l.root, 9, trustNow.Add(-time.Minute), "")
	l.admit("n3", late, 1, "expired")
	l.putNode("n3", "was not admitted")
	l.present("n1")
	l.put(KindWitness, overlay.TrustPath("seen", "n3"), identity("n1"), overlay.Witness{Node: "n3", Identity: identity("n3").Public(), Token: late.Public(), Seen: trustNow, Signer: "n1", Revision: 1}, "")
	l.present("n1", "n3") // somebody saw it in time
	l.revoke(tok.Public(), l.root, "")
	l.admit("n2", tok, 1, "was revoked")
	l.present("n1", "n3") // whom it let in stays
}

func TestTokenReplacesNobody(t *testing.T) {
	l := newLocked(t)
	l.admit("n1", l.root, 0, "")
	l.putNode("n1", "")
	tok := identity("token")
	l.token(tok, l.root, 5, trustNow.Add(time.Hour), "")
	l.put(KindAdmission, overlay.TrustPath("nodes", "n1"), tok, overlay.Admission{Node: "n1", Identity: identity("thief").Public(), Admitted: trustNow,
		Signer: tok.Public(), Slot: 1, Revision: 9}, "replaces none")
	l.present("n1")
}

func TestSignerReplacesIdentity(t *testing.T) {
	l := newLocked(t)
	l.admit("n1", l.root, 0, "")
	n := node("n1", 57)
	l.put(KindNode, "nodes/n1", identity("n1"), n, "")
	fresh := identity("n1 set up anew")
	m := node("n1", 1)
	m.Identity = fresh.Public()
	l.put(KindNode, "nodes/n1", fresh, m, "older than") // by revision, before anybody looks who it is
	l.put(KindAdmission, overlay.TrustPath("nodes", "n1"), l.root, overlay.Admission{Node: "n1", Identity: fresh.Public(), Admitted: trustNow, Signer: l.root.Public(), Revision: 2}, "")
	l.put(KindNode, "nodes/n1", fresh, m, "")
	if got := l.Snapshot(true).Nodes["n1"].Identity; got != fresh.Public() {
		t.Errorf("n1 is %s", got.Short())
	}
}

func TestForget(t *testing.T) {
	l := New(cluster)
	v := func(id string, rev uint64) []byte {
		n := node("n1", rev)
		n.Identity = identity(id).Public()
		b, err := keys.Envelope{Kind: KindNode, Cluster: cluster, Path: "nodes/n1"}.Seal(identity(id), n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if _, err := l.Offer("nodes/n1", v("old", 5)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Offer("nodes/n1", v("new", 6)); err == nil || !strings.Contains(err.Error(), "weft node forget n1") {
		t.Errorf("another identity: %v", err)
	}
	if !l.Forget("n1") || l.Forget("n1") {
		t.Error("forgetting is not told apart")
	}
	if _, err := l.Offer("nodes/n1", v("new", 6)); err != nil {
		t.Error(err)
	}
}

// TestFlood: a flood of bad records is refused at bounded cost.
func TestFlood(t *testing.T) {
	l := New(cluster)
	value := []byte(strings.Repeat("[", 10<<10))
	for i := range 2500 {
		if _, err := l.Offer("nodes/bogus-"+strings.Repeat("x", i%7)+string(rune('a'+i%26))+time.Duration(i).String(), value); err == nil {
			t.Fatal("accepted")
		}
	}
	if len(l.rejected) > maxRejected || l.refused > maxRejectedBytes {
		t.Errorf("%d records and %d bytes are kept", len(l.rejected), l.refused)
	}
}

// FuzzLocked: bytes that nobody signed change nothing, whatever the path, and signed ones never panic.
func FuzzLocked(f *testing.F) {
	seal := func(kind, path string, by keys.Identity, record any) []byte {
		v, err := keys.Envelope{Kind: kind, Cluster: cluster, Path: path}.Seal(by, record)
		if err != nil {
			f.Fatal(err)
		}
		return v
	}
	stranger := identity("stranger")
	n := node("n1", 3)
	n.Identity = stranger.Public()
	f.Add("nodes/n1", seal(KindNode, "nodes/n1", stranger, n))
	path := overlay.TrustPath("nodes", "n1")
	f.Add(path, seal(KindAdmission, path, stranger, overlay.Admission{Node: "n1", Identity: identity("x").Public(), Admitted: trustNow, Signer: stranger.Public(), Revision: 2}))
	path = overlay.TrustPath("revoked", overlay.KeyPath(identity("n1").Public()))
	f.Add(path, seal(KindRevocation, path, stranger, overlay.Revocation{Key: identity("n1").Public(), Name: "n1", Revoked: trustNow, Signer: stranger.Public(), Revision: 1}))
	f.Add("kem/n2/n1", []byte(`{"from":"n1"}`))
	root := identity("root")
	f.Fuzz(func(t *testing.T, path string, value []byte) {
		l := NewWith(cluster, Policy{Locked: true, Signers: []keys.IdentityKey{root.Public()}, Self: identity("n0").Public()})
		l.At(trustNow)
		admission := overlay.TrustPath("nodes", "n1")
		if _, err := l.Offer(admission, seal(KindAdmission, admission, root, overlay.Admission{Node: "n1", Identity: identity("n1").Public(), Admitted: trustNow, Signer: root.Public(), Revision: 1})); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Offer("nodes/n1", seal(KindNode, "nodes/n1", identity("n1"), node("n1", 1))); err != nil {
			t.Fatal(err)
		}
		before := l.Snapshot(true)
		if changed, err := l.Offer(path, value); changed || err == nil && string(l.records[path].Value) != string(value) {
			t.Errorf("%s: accepted, %v", path, err)
		}
		same(t, before, l.Snapshot(true))
	})
}
