package ledger

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"weft/keys"
	"weft/pkg/overlay"
)

// decode reads the body of a record and checks that it is valid. Its revision is the signed one: Open refuses a second
// spelling of that member.
func decode[T interface{ Validate() error }](signed keys.Signed) (T, error) {
	var v T
	if err := json.Unmarshal(signed.Body, &v); err != nil {
		return v, fmt.Errorf("decode: %w", err)
	}
	if err := v.Validate(); err != nil {
		return v, err
	}
	return v, nil
}

func (l *Ledger) acceptNode(path string, signed keys.Signed) error {
	n, err := decode[overlay.Node](signed)
	if err != nil {
		return err
	}
	if path != "nodes/"+n.Name && !without("path") {
		return fmt.Errorf("it names node %q: a record must stand under its own name", n.Name)
	}
	old, known := l.nodes[n.Name]
	anew := known && old.Identity != n.Identity && l.removed(old) // an operator gave the name free
	if pin, ok := l.pins[n.Name]; ok && pin != n.Identity && !anew && !without("pin") {
		return fmt.Errorf("identity %s is not the one first seen (%s): if node %s was set up anew, free its name with `weft node rm %s` on another node, run `weft node forget %s` on each node, or have a signer admit it with `weft trust sign %s`",
			n.Identity.Short(), pin.Short(), n.Name, n.Name, n.Name, n.Name)
	}
	if err := signed.Verify(n.Identity); err != nil && !without("signature") {
		return err
	}
	if err := l.excluded(n.Name, n.Identity); err != nil {
		return err
	}
	if err := l.unclaimedBy(n); err != nil && !without("signature") {
		return err
	}
	if anew {
		for path, set := range l.endpoints {
			if set.Node == n.Name {
				delete(l.endpoints, path) // the old identity's; the record stays as the floor of revisions
			}
		}
		l.former[n.Name] = append(l.former[n.Name], old.Identity)
	}
	l.pins[n.Name] = n.Identity
	l.nodes[n.Name] = n
	return nil
}

// removed reports whether an accepted removal covers a node's record.
func (l *Ledger) removed(n overlay.Node) bool {
	r, ok := l.removals[n.Name]
	return ok && r.Identity == n.Identity && r.NodeRevision >= n.Revision
}

// unclaimedBy refuses a node that claims the VTEP address or a WireGuard key of one that was accepted before and is
// present: whoever can write Consul could otherwise take over an existing node's place in the mesh under a new name.
func (l *Ledger) unclaimedBy(n overlay.Node) error {
	if l.loading || !n.Present() {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(l.nodes)) {
		other := l.nodes[name]
		if name == n.Name || !other.Present() || l.removed(other) {
			continue
		}
		if other.VTEP == n.VTEP {
			return waiting{"nodes/" + name, fmt.Sprintf("VTEP %s belongs to node %s", n.VTEP, name)}
		}
		for _, k := range n.WireGuard {
			if slices.ContainsFunc(other.WireGuard, func(o overlay.WireGuardKey) bool { return o.PublicKey == k.PublicKey }) {
				return waiting{"nodes/" + name, fmt.Sprintf("WireGuard key %s belongs to node %s", k.PublicKey.Short(), name)}
			}
		}
	}
	return nil
}

// waiting refuses a record that may be good once another one is accepted.
type waiting struct{ path, why string }

func (w waiting) Error() string { return w.why }

// verify checks that a record was signed by an accepted node; one that left may have signed what is still valid. current
// is false when it was an identity that the name had before, which counts only for what was accepted then.
func (l *Ledger) verify(signed keys.Signed, name string) (current bool, err error) {
	k, ok := l.pins[name]
	if !ok {
		return false, waiting{"nodes/" + name, fmt.Sprintf("signed by node %q, which is not known (yet)", name)}
	}
	if err := l.excluded(name, k); err != nil && !l.loading { // what a node signed before it was revoked stays
		return false, err
	}
	if err = signed.Verify(k); err == nil || without("signature") {
		return true, nil
	}
	if l.loading {
		for _, former := range l.former[name] {
			if signed.Verify(former) == nil {
				return false, nil
			}
		}
	}
	return false, err
}

func (l *Ledger) acceptNetwork(path string, signed keys.Signed) error {
	n, err := decode[overlay.Network](signed)
	if err != nil {
		return err
	}
	if path != "networks/"+n.Name && !without("path") {
		return fmt.Errorf("it names network %q: a record must stand under its own name", n.Name)
	}
	if _, err := l.verify(signed, n.Signer); err != nil {
		return err
	}
	old, ok := l.networks[n.Name]
	switch {
	case l.retired[n.ID]:
		return fmt.Errorf("id %s was that of a deleted network: a deleted id does not come back", n.ID)
	case !ok:
	case old.ID != n.ID && old.Alive() && !slices.Contains(n.Replaces, old.ID):
		return fmt.Errorf("network %s is already %s and was not deleted, but the record says %s", n.Name, old.ID, n.ID)
	case old.ID == n.ID && !old.Alive() && n.Alive():
		return fmt.Errorf("network %s (%s) was deleted: a deleted id does not come back", n.Name, n.ID)
	case old.ID == n.ID && (old.VNI != n.VNI || old.Encrypted != n.Encrypted || old.Internal != n.Internal || !slices.Equal(old.Subnets, n.Subnets)) && !without("immutable"):
		return fmt.Errorf("VNI, subnets, encryption and egress of network %s (%s) cannot change", n.Name, n.ID)
	}
	if seen := l.Revision(path); n.Revision > seen+maxAhead {
		return fmt.Errorf("revision %d is not believable after %d: nobody could change the network after it", n.Revision, seen)
	}
	if err := l.unclaimed(n); err != nil {
		return err
	}
	if ok && old.ID != n.ID {
		l.retired[old.ID] = true // its tombstone is no longer there to say so
	}
	l.networks[n.Name] = n
	return nil
}

// unclaimed checks that n takes nothing from a network of another name. An id is given once, also after a deletion: what
// may not change about it would change with the name. Of live networks each has its own VNI.
func (l *Ledger) unclaimed(n overlay.Network) error {
	for _, name := range slices.Sorted(maps.Keys(l.networks)) {
		other := l.networks[name]
		switch {
		case name == n.Name:
		case other.ID == n.ID:
			return fmt.Errorf("id %s belongs to network %s", n.ID, name)
		case other.VNI == n.VNI && other.Alive() && n.Alive():
			return waiting{"networks/" + name, fmt.Sprintf("VNI %d belongs to network %s", n.VNI, name)}
		}
	}
	return nil
}

func (l *Ledger) acceptEndpoints(path string, signed keys.Signed) error {
	set, err := decode[overlay.EndpointSet](signed)
	if err != nil {
		return err
	}
	if path != "endpoints/"+set.Node+"/"+set.Network {
		return fmt.Errorf("it names node %q and network %q: a record must stand under its own name", set.Node, set.Network)
	}
	current, err := l.verify(signed, set.Node)
	if current {
		l.endpoints[path] = set // a former identity's only counts as the floor of revisions
	}
	return err
}

func (l *Ledger) acceptKEM(path string, signed keys.Signed) error {
	k, err := decode[overlay.KEM](signed)
	if err != nil {
		return err
	}
	if path != "kem/"+k.To+"/"+k.From {
		return fmt.Errorf("it is from node %q to node %q: a record must stand under its own name", k.From, k.To)
	}
	if current, err := l.verify(signed, k.From); err != nil || !current {
		return err
	}
	l.kems[path] = k
	return nil
}

// maxAhead is how far a revision that others must count past may be ahead of what was seen here: nobody may take the
// whole range.
const maxAhead = 1 << 20

func (l *Ledger) acceptRemoval(path string, signed keys.Signed) error {
	r, err := decode[overlay.Removal](signed)
	if err != nil {
		return err
	}
	if path != "removed/"+r.Node {
		return fmt.Errorf("it names node %q: a record must stand under its own name", r.Node)
	}
	if _, err := l.verify(signed, r.Signer); err != nil {
		return err
	}
	pin, ok := l.pins[r.Node]
	if !ok {
		return waiting{"nodes/" + r.Node, fmt.Sprintf("it removes node %q, which is not known (yet)", r.Node)}
	}
	if seen := l.Revision("nodes/" + r.Node); r.NodeRevision > seen+maxAhead {
		return fmt.Errorf("it covers revision %d of node %s, whose newest is %d: not believable", r.NodeRevision, r.Node, seen)
	}
	if pin != r.Identity && (l.loading || l.Revision("nodes/"+r.Node) > r.NodeRevision) {
		return nil // it is spent: the name has another identity since
	}
	if pin != r.Identity {
		return fmt.Errorf("it removes identity %s, but node %s is %s", r.Identity.Short(), r.Node, pin.Short())
	}
	l.removals[r.Node] = r
	return nil
}

// RemovedAt is the highest revision of a node's record that an accepted removal covers, 0 for none: a record above it
// makes the node present again.
func (l *Ledger) RemovedAt(node string) uint64 { return l.removals[node].NodeRevision }

// Owner is the node that a path belongs to, "" when any node may write there.
func Owner(path string) string {
	part := strings.Split(path, "/")
	switch {
	case len(part) == 2 && part[0] == "nodes", len(part) == 3 && part[0] == "endpoints":
		return part[1]
	case len(part) == 3 && part[0] == "kem":
		return part[2]
	}
	return ""
}
