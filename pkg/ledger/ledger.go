package ledger

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"weft/keys"
	"weft/pkg/overlay"
)

// The kinds of signed record, as their envelope names them.
const (
	KindNode      = "node"
	KindNetwork   = "network"
	KindEndpoints = "endpoints"
	KindRemoval   = "removal"
	KindKEM       = "kem"
)

// Record is an accepted record: the exact bytes that its signer wrote.
type Record struct {
	Path     string `json:"path"`
	Revision uint64 `json:"revision"`
	Value    []byte `json:"value"`
}

// Ledger holds the accepted records of one cluster. Not safe for concurrent use. Use New.
type Ledger struct {
	cluster   string
	pins      map[string]keys.IdentityKey
	former    map[string][]keys.IdentityKey // identities that a name had before an operator gave it free
	records   map[string]Record
	rejected  map[string]rejection
	nodes     map[string]overlay.Node
	networks  map[string]overlay.Network
	endpoints map[string]overlay.EndpointSet // by path
	removals  map[string]overlay.Removal
	kems      map[string]overlay.KEM     // by path
	retired   map[overlay.NetworkID]bool // ids of deleted networks whose name has a new id
	floors    map[string]uint64          // the highest revision ever accepted, where its record is not used any more
	trust     trust
	refused   int  // bytes that the rejected values hold
	loading   bool // records come from this node's own disk: they were good when they came
}

// rejection is the newest value at a path that was not accepted.
type rejection struct {
	value []byte
	err   error
}

// ErrOlder is in the chain of the error for a record whose revision is not above the accepted one.
var ErrOlder = errors.New("older than the record already accepted")

// ErrEqual is in that chain too, when the revision is the same and only the bytes differ: two nodes signed it, or one
// forgot that it had. Neither is newer, so writing the accepted one over the other would be answered in kind.
var ErrEqual error = equal{}

type equal struct{}

func (equal) Error() string {
	return "the accepted record has the same revision and says something else"
}
func (equal) Is(target error) bool { return target == ErrOlder }

// New returns an empty ledger for a cluster id, with an open policy.
func New(cluster string) *Ledger { return NewWith(cluster, Policy{}) }

// NewWith returns an empty ledger for a cluster id and a policy.
func NewWith(cluster string, p Policy) *Ledger {
	return &Ledger{
		cluster: cluster, pins: map[string]keys.IdentityKey{}, former: map[string][]keys.IdentityKey{}, records: map[string]Record{}, rejected: map[string]rejection{},
		nodes: map[string]overlay.Node{}, networks: map[string]overlay.Network{},
		endpoints: map[string]overlay.EndpointSet{}, removals: map[string]overlay.Removal{}, kems: map[string]overlay.KEM{}, retired: map[overlay.NetworkID]bool{},
		floors: map[string]uint64{}, trust: newTrust(p),
	}
}

// Cluster is the id the records are bound to.
func (l *Ledger) Cluster() string { return l.cluster }

// Self fixes the identity of this node's own name. It is believed here without anybody's word.
func (l *Ledger) Self(node string, identity keys.IdentityKey) {
	l.pins[node], l.trust.self = identity, identity
}

// The bounds of what is remembered of refused records, so that a flood of them costs little. Beyond them a record is
// refused all the same, and offered again by the next reading of the store.
const (
	maxRejected      = 2000
	maxRejectedBytes = 8 << 20
)

// reject remembers why the newest value at a path is not used.
func (l *Ledger) reject(path string, value []byte, err error) {
	old, known := l.rejected[path]
	l.refused -= len(old.value)
	delete(l.rejected, path)
	if len(l.rejected) >= maxRejected || l.refused+len(value) > maxRejectedBytes {
		if !known {
			return
		}
		value = nil
	}
	l.refused += len(value)
	l.rejected[path] = rejection{value: slices.Clone(value), err: err}
}

func (l *Ledger) unreject(path string) {
	l.refused -= len(l.rejected[path].value)
	delete(l.rejected, path)
}

// Offer decides about a value found at path. changed is true when the accepted records are different afterwards. A
// refused record leaves what was accepted before untouched, and is remembered with its reason (Rejected); it is tried
// again by itself when what it waits for is accepted: the node that signed it or that it removes, or the deletion of the
// network whose VNI it claims.
func (l *Ledger) Offer(path string, value []byte) (changed bool, err error) {
	if have, ok := l.records[path]; ok && bytes.Equal(have.Value, value) {
		l.unreject(path)
		return false, nil
	}
	changed, err = l.offer(path, value)
	if err != nil {
		l.reject(path, value, err)
		return false, err
	}
	l.unreject(path)
	l.retry(path)
	if node, ok := strings.CutPrefix(path, "removed/"); ok {
		l.retry("nodes/" + node) // what waited for that node's claims
	}
	return changed, nil
}

func (l *Ledger) offer(path string, value []byte) (bool, error) {
	kind, err := kindOf(path)
	if err != nil {
		return false, err
	}
	signed, err := keys.Envelope{Kind: kind, Cluster: l.cluster, Path: path}.Open(value)
	if err != nil {
		return false, fmt.Errorf("read record %s: %w", path, err)
	}
	switch have, ok := l.records[path]; {
	case ok && signed.Revision < have.Revision && !without("revision"):
		return false, fmt.Errorf("record %s has revision %d, accepted is %d: %w", path, signed.Revision, have.Revision, ErrOlder)
	case signed.Revision < l.floors[path] && !without("revision"):
		return false, fmt.Errorf("record %s has revision %d, seen was %d: %w", path, signed.Revision, l.floors[path], ErrOlder)
	case ok && signed.Revision == have.Revision:
		return false, fmt.Errorf("record %s has revision %d: %w", path, signed.Revision, ErrEqual)
	}
	accept := map[string]func(string, keys.Signed) error{KindNode: l.acceptNode, KindNetwork: l.acceptNetwork,
		KindEndpoints: l.acceptEndpoints, KindRemoval: l.acceptRemoval, KindKEM: l.acceptKEM,
		KindAdmission: l.acceptAdmission, KindRevocation: l.acceptRevocation, KindSigner: l.acceptSigner, KindToken: l.acceptToken,
		KindWitness: l.acceptWitness}[kind]
	if err := accept(path, signed); err != nil {
		return false, fmt.Errorf("record %s: %w", path, err)
	}
	l.records[path] = Record{Path: path, Revision: signed.Revision, Value: slices.Clone(value)}
	return true, nil
}

// retry offers again what waited for a record that was accepted, and what waited for that.
func (l *Ledger) retry(accepted ...string) {
	for len(accepted) > 0 {
		var next []string
		for _, path := range slices.Sorted(maps.Keys(l.rejected)) {
			r := l.rejected[path]
			var w waiting
			if !errors.As(r.err, &w) || !slices.Contains(accepted, w.path) || r.value == nil {
				continue
			}
			if _, err := l.offer(path, r.value); err != nil {
				l.reject(path, r.value, err)
				continue
			}
			l.unreject(path)
			next = append(next, path)
		}
		accepted = next
	}
}

func kindOf(path string) (string, error) {
	part := strings.Split(path, "/")
	if slices.Contains(part, "") {
		return "", fmt.Errorf("path %q holds no record", path)
	}
	switch {
	case len(part) == 2 && part[0] == "nodes":
		return KindNode, nil
	case len(part) == 2 && part[0] == "networks":
		return KindNetwork, nil
	case len(part) == 2 && part[0] == "removed":
		return KindRemoval, nil
	case len(part) == 3 && part[0] == "endpoints":
		return KindEndpoints, nil
	case len(part) == 3 && part[0] == "kem":
		return KindKEM, nil
	case trustKind(part) != "":
		return trustKind(part), nil
	}
	return "", fmt.Errorf("path %q holds no record", path)
}

// Rejected is, per path, why the newest value there is not used.
func (l *Ledger) Rejected() map[string]string {
	out := make(map[string]string, len(l.rejected))
	for path, r := range l.rejected {
		out[path] = r.err.Error()
	}
	return out
}

// Why says why the newest value at path is not used, "" when it is.
func (l *Ledger) Why(path string) string {
	if r, ok := l.rejected[path]; ok {
		return r.err.Error()
	}
	return ""
}

// Get returns the accepted record at path.
func (l *Ledger) Get(path string) (Record, bool) { r, ok := l.records[path]; return r, ok }

// KEM returns the accepted record in which from says what it encapsulated to the node to.
func (l *Ledger) KEM(to, from string) (overlay.KEM, bool) {
	k, ok := l.kems["kem/"+to+"/"+from]
	return k, ok
}

// Shared returns the accepted records that no single node owns, ordered by path: networks and removals. Any node may
// put them back into a store that lost them, as they are.
func (l *Ledger) Shared() []Record {
	var out []Record
	for _, path := range slices.Sorted(maps.Keys(l.records)) {
		if Owner(path) == "" {
			out = append(out, l.records[path])
		}
	}
	return out
}

// Revision is the highest accepted revision at path, 0 for none.
func (l *Ledger) Revision(path string) uint64 { return l.records[path].Revision }

// Floor is the highest revision ever accepted at path, also when its record is not used any more.
func (l *Ledger) Floor(path string) uint64 { return max(l.records[path].Revision, l.floors[path]) }

// Snapshot is the accepted records as values. complete is the caller's knowledge, see overlay.Snapshot.
func (l *Ledger) Snapshot(complete bool) *overlay.Snapshot {
	s := &overlay.Snapshot{Cluster: l.cluster, Nodes: map[string]overlay.Node{}, Networks: maps.Clone(l.networks), Complete: complete}
	for name, n := range l.nodes {
		if l.excluded(name, n.Identity) != nil {
			continue
		}
		if n.Present() && l.removed(n) {
			n.Left = l.removals[name].Removed
		}
		s.Nodes[name] = n
	}
	sets := map[string]overlay.EndpointSet{}
	for path, set := range l.endpoints {
		if id, ok := l.pins[set.Node]; !ok || l.excluded(set.Node, id) == nil {
			sets[path] = set
		}
	}
	s.Endpoints = slices.SortedFunc(maps.Values(sets), func(a, b overlay.EndpointSet) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Node, b.Node))
	})
	return s
}

// file is the form in which a ledger is kept on disk.
type file struct {
	Cluster string                        `json:"cluster"`
	Pins    map[string]keys.IdentityKey   `json:"pins"`
	Former  map[string][]keys.IdentityKey `json:"former,omitempty"`
	Retired []overlay.NetworkID           `json:"retired,omitempty"`
	Floors  map[string]uint64             `json:"floors,omitempty"`
	Records []Record                      `json:"records"`
}

// MarshalJSON writes pins, retired ids, records, and of those that are not used any more the revisions; what was never
// accepted is not kept.
func (l *Ledger) MarshalJSON() ([]byte, error) {
	f := file{Cluster: l.cluster, Pins: l.pins, Former: l.former, Retired: slices.Sorted(maps.Keys(l.retired)), Floors: l.floors}
	for _, path := range slices.Sorted(maps.Keys(l.records)) {
		f.Records = append(f.Records, l.records[path])
	}
	return json.Marshal(f)
}

// Load reads what MarshalJSON wrote, under an open policy. Every record is verified again; one that fails is reported, not
// used.
func Load(data []byte) (*Ledger, error) { return LoadWith(data, Policy{}) }

// LoadWith is Load under a policy.
func LoadWith(data []byte, p Policy) (*Ledger, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	l := NewWith(f.Cluster, p)
	if f.Pins != nil {
		l.pins = f.Pins
	}
	if f.Former != nil {
		l.former = f.Former
	}
	for _, id := range f.Retired {
		l.retired[id] = true
	}
	if f.Floors != nil {
		l.floors = f.Floors
	}
	slices.SortStableFunc(f.Records, func(a, b Record) int { // a token's use was in time when it was accepted: it has a record
		return cmp.Compare(rank(a.Path), rank(b.Path))
	})
	l.loading = true
	defer func() { l.loading = false }()
	for _, r := range f.Records { // what is signed by a node that comes later is tried again then
		_, _ = l.Offer(r.Path, r.Value)
	}
	var errs []error
	for _, path := range slices.Sorted(maps.Keys(l.rejected)) {
		errs = append(errs, l.rejected[path].err)
	}
	for _, r := range f.Records {
		if l.records[r.Path].Revision < r.Revision {
			l.floors[r.Path] = max(l.floors[r.Path], r.Revision)
		}
	}
	return l, errors.Join(errs...)
}

// rank orders the records of a file so that few have to wait for another: whom to believe first.
func rank(path string) int {
	for i, dir := range []string{"trust/signers/", "trust/revoked/", "trust/tokens/", "trust/nodes/"} {
		if strings.HasPrefix(path, dir) {
			return i
		}
	}
	return 9
}
