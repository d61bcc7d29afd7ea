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
	if err := signed.Verify(n.Identity); err != nil && !without("signature") {
		return err
	}
	if err := l.excluded(n.Name, n.Identity); err != nil {
		return err
	}
	if pin, ok := l.pins[n.Name]; ok && pin != n.Identity && !without("pin") {
		return fmt.Errorf("identity %s is not the one first seen (%s): if node %s was set up anew, run `weft node forget %s` on each node, or have a signer admit it with `weft trust sign %s`",
			n.Identity.Short(), pin.Short(), n.Name, n.Name, n.Name)
	}
	l.pins[n.Name] = n.Identity
	l.nodes[n.Name] = n
	return nil
}

// waiting refuses a record that may be good once another one is accepted.
type waiting struct{ path, why string }

func (w waiting) Error() string { return w.why }

// signer is the identity of an accepted node. A node that left may have signed what is still valid.
func (l *Ledger) signer(name string) (keys.IdentityKey, error) {
	k, ok := l.pins[name]
	if !ok {
		return k, waiting{"nodes/" + name, fmt.Sprintf("signed by node %q, which is not known (yet)", name)}
	}
	if err := l.excluded(name, k); err != nil && !l.loading { // what a node signed before it was revoked stays
		return k, err
	}
	return k, nil
}

func (l *Ledger) acceptNetwork(path string, signed keys.Signed) error {
	n, err := decode[overlay.Network](signed)
	if err != nil {
		return err
	}
	if path != "networks/"+n.Name && !without("path") {
		return fmt.Errorf("it names network %q: a record must stand under its own name", n.Name)
	}
	k, err := l.signer(n.Signer)
	if err != nil {
		return err
	}
	if err := signed.Verify(k); err != nil && !without("signature") {
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
	case old.ID == n.ID && (old.VNI != n.VNI || old.Encrypted != n.Encrypted || !slices.Equal(old.Subnets, n.Subnets)) && !without("immutable"):
		return fmt.Errorf("VNI, subnets and encryption of network %s (%s) cannot change", n.Name, n.ID)
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
	k, err := l.signer(set.Node)
	if err != nil {
		return err
	}
	if err := signed.Verify(k); err != nil && !without("signature") {
		return err
	}
	l.endpoints[path] = set
	return nil
}

func (l *Ledger) acceptKEM(path string, signed keys.Signed) error {
	k, err := decode[overlay.KEM](signed)
	if err != nil {
		return err
	}
	if path != "kem/"+k.To+"/"+k.From {
		return fmt.Errorf("it is from node %q to node %q: a record must stand under its own name", k.From, k.To)
	}
	id, err := l.signer(k.From)
	if err != nil {
		return err
	}
	if err := signed.Verify(id); err != nil {
		return err
	}
	l.kems[path] = k
	return nil
}

// maxAhead is how far a removal may be ahead of the node's records seen here: a removed node comes back by counting past
// it, so it must not be able to take the whole range.
const maxAhead = 1 << 20

func (l *Ledger) acceptRemoval(path string, signed keys.Signed) error {
	r, err := decode[overlay.Removal](signed)
	if err != nil {
		return err
	}
	if path != "removed/"+r.Node {
		return fmt.Errorf("it names node %q: a record must stand under its own name", r.Node)
	}
	k, err := l.signer(r.Signer)
	if err != nil {
		return err
	}
	if err := signed.Verify(k); err != nil && !without("signature") {
		return err
	}
	pin, ok := l.pins[r.Node]
	if !ok {
		return waiting{"nodes/" + r.Node, fmt.Sprintf("it removes node %q, which is not known (yet)", r.Node)}
	}
	if seen := l.Revision("nodes/" + r.Node); r.NodeRevision > seen+maxAhead {
		return fmt.Errorf("it covers revision %d of node %s, whose newest is %d: not believable", r.NodeRevision, r.Node, seen)
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
