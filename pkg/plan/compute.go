package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"weft/keys"
	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

// Compute decides what the kernel of this node should hold. It never fails: what is wrong in the input is settled by a
// stated rule, costs as little as possible, and is reported in the sorted list of problems.
//
// Who claims what another has loses it in this order: this node keeps its own, then the older lease wins, then nodes go by
// name, and inside one record endpoints go by id. Two networks with one VNI go by age, then by name.
func Compute(in Input) (*kstate.State, []overlay.Problem) {
	if in.Snapshot == nil {
		in.Snapshot = &overlay.Snapshot{}
	}
	b := &builder{
		self: in.Self, snap: in.Snapshot, leases: in.Leases, want: kstate.NewState(),
		peerOf: map[string]*peer{}, sets: map[overlay.NetworkID][]overlay.EndpointSet{},
	}
	b.resolveNodes()
	b.resolveSegments(in.Local)
	for _, s := range b.segments {
		b.resolveRemote(s)
	}
	b.reserve()
	b.transit()
	b.host()
	for _, s := range b.segments {
		b.segment(s)
	}
	b.gate()
	return b.want, sorted(b.problems)
}

// builder holds one run of Compute.
type builder struct {
	self Self
	snap *overlay.Snapshot
	want *kstate.State

	leases   map[Claim]uint64
	peers    []*peer          // the other present nodes, by name
	peerOf   map[string]*peer // the same
	sets     map[overlay.NetworkID][]overlay.EndpointSet
	segments []*segment          // networks that are built here, the oldest first
	frozen   []overlay.NetworkID // networks with endpoints here that cannot be computed
	problems []overlay.Problem
	// frozenInbound: a frozen network has endpoints with host routes.
	frozenInbound bool
}

// reserve makes room for about as many items as there will be: three for each remote endpoint are most of them.
func (b *builder) reserve() {
	n := 64 + 2*len(b.peers)
	for _, s := range b.segments {
		n += 64 + 12*len(s.local)
		for _, r := range s.remote {
			n += 4 + 3*len(r.endpoints)
		}
	}
	entries := make(map[kstate.Key]kstate.Entry, n)
	maps.Copy(entries, b.want.Entries)
	b.want.Entries = entries
}

// newest is this node's newest key generation; ok is false when it has none.
func (b *builder) newest() (k overlay.WireGuardKey, ok bool) {
	if n := len(b.self.WireGuard); n > 0 {
		return b.self.WireGuard[n-1], true
	}
	return overlay.WireGuardKey{}, false
}

// ownKeys is the set of this node's live public keys.
func (b *builder) ownKeys() map[keys.PublicKey]string {
	own := map[keys.PublicKey]string{}
	for _, k := range b.self.WireGuard {
		own[k.PublicKey] = b.self.Node
	}
	return own
}

func (b *builder) problem(subject, format string, a ...any) {
	b.problems = append(b.problems, overlay.Problem{Subject: subject, Message: fmt.Sprintf(format, a...)})
}

// gate says what may be removed: nothing before every source has delivered once, and nothing of a network whose record
// is missing although endpoints are here. A record that vanished is no deletion.
func (b *builder) gate() {
	complete := b.snap.Complete
	b.want.Prune[""], b.want.Prune[kstate.TransitGroup] = complete, complete
	for _, s := range b.segments {
		b.want.Prune[string(s.ID)] = complete
	}
	for _, id := range b.frozen {
		b.want.Prune[string(id)] = false
	}
}

func sorted(ps []overlay.Problem) []overlay.Problem {
	slices.SortFunc(ps, func(a, b overlay.Problem) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(ps)
}
