package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"weft/keys"
	"weft/pkg/overlay"
)

// The kinds of record below trust/.
const (
	KindAdmission  = "admission"
	KindRevocation = "revocation"
	KindSigner     = "signer"
	KindToken      = "token"
	KindWitness    = "witness"
)

// Policy is the operator's word, from this node's own configuration: no record changes it.
type Policy struct {
	// Locked: only identities count that a signer admitted, or a token that a signer made.
	Locked bool
	// Signers are the keys that the operator holds. In an open cluster they may replace a pinned identity.
	Signers []keys.IdentityKey
	// Self is this node's own identity, which it believes without anybody's word.
	Self keys.IdentityKey
}

// trust is what the records below trust/ say.
type trust struct {
	policy     Policy
	now        time.Time
	self       keys.IdentityKey
	admissions map[string]overlay.Admission // by node
	revoked    map[keys.IdentityKey]overlay.Revocation
	signers    map[keys.IdentityKey]overlay.Signer
	tokens     map[keys.IdentityKey]overlay.Token
	witnesses  map[string]overlay.Witness // by node
}

func newTrust(p Policy) trust {
	return trust{policy: p, self: p.Self, admissions: map[string]overlay.Admission{}, revoked: map[keys.IdentityKey]overlay.Revocation{},
		signers: map[keys.IdentityKey]overlay.Signer{}, tokens: map[keys.IdentityKey]overlay.Token{}, witnesses: map[string]overlay.Witness{}}
}

// At tells the ledger the time (wall clock), which decides whether tokens are still valid.
func (l *Ledger) At(now time.Time) { l.trust.now = now }

// trustKind is the kind of a path below trust/.
func trustKind(part []string) string {
	if len(part) != 3 || part[0] != "trust" {
		return ""
	}
	return map[string]string{"nodes": KindAdmission, "revoked": KindRevocation, "signers": KindSigner, "tokens": KindToken, "seen": KindWitness}[part[1]]
}

// root reports whether k stands in the configuration and was not revoked.
func (t *trust) root(k keys.IdentityKey) bool {
	_, gone := t.revoked[k]
	return slices.Contains(t.policy.Signers, k) && !gone
}

// authority reports whether k may admit, revoke and make tokens.
func (t *trust) authority(k keys.IdentityKey) bool {
	if without("signer") || t.root(k) {
		return true
	}
	s, ok := t.signers[k]
	_, gone := t.revoked[k]
	return ok && !gone && t.root(s.Signer)
}

func notSigner(k keys.IdentityKey) error {
	return waiting{overlay.TrustPath("signers", overlay.KeyPath(k)), fmt.Sprintf("key %s is no signer of this cluster (see trust.signers in this node's configuration)", k.Short())}
}

func (l *Ledger) acceptAdmission(path string, signed keys.Signed) error {
	a, err := decode[overlay.Admission](signed)
	if err != nil {
		return err
	}
	if path != overlay.TrustPath("nodes", a.Node) {
		return fmt.Errorf("it admits node %q: a record must stand under its own name", a.Node)
	}
	if err := signed.Verify(a.Signer); err != nil {
		return err
	}
	t := &l.trust
	if _, gone := t.revoked[a.Identity]; gone && !without("revocation") {
		return fmt.Errorf("identity %s was revoked: a revoked identity does not come back, the node needs a new one", a.Identity.Short())
	}
	if a.Slot == 0 {
		if !t.authority(a.Signer) {
			return notSigner(a.Signer)
		}
	} else if err := l.checkToken(a); err != nil {
		return err
	}
	if pin, ok := l.pins[a.Node]; ok && pin != a.Identity && pin != t.self {
		l.forget(a.Node)
	}
	t.admissions[a.Node] = a
	if l.pins[a.Node] != t.self || t.self.IsZero() {
		l.pins[a.Node] = a.Identity
	}
	return nil
}

// checkToken decides about an admission by a token: it may let a new node in, as often as it was made for and in time,
// but not replace one.
func (l *Ledger) checkToken(a overlay.Admission) error {
	t := &l.trust
	tok, ok := t.tokens[a.Signer]
	if !ok {
		return waiting{overlay.TrustPath("tokens", overlay.KeyPath(a.Signer)), fmt.Sprintf("token %s is not known (yet)", a.Signer.Short())}
	}
	if !t.authority(tok.Signer) {
		return notSigner(tok.Signer)
	}
	if _, gone := t.revoked[a.Signer]; gone {
		return fmt.Errorf("token %s was revoked", a.Signer.Short())
	}
	if pin, ok := l.pins[a.Node]; ok && pin != a.Identity {
		return fmt.Errorf("node %s is %s: a token lets new nodes in, and replaces none", a.Node, pin.Short())
	}
	if a.Slot > tok.Uses && !without("uses") {
		return fmt.Errorf("token %s was made for %d uses, this is number %d", a.Signer.Short(), tok.Uses, a.Slot)
	}
	for name, other := range t.admissions {
		if other.Signer == a.Signer && other.Slot == a.Slot && (name != a.Node || other.Identity != a.Identity) && !without("uses") {
			return fmt.Errorf("use %d of token %s is taken by node %s", a.Slot, a.Signer.Short(), name)
		}
	}
	if t.now.After(tok.Expires) && !l.witnessed(a) && !without("expiry") {
		return waiting{overlay.TrustPath("seen", a.Node), fmt.Sprintf("token %s expired at %s, and no accepted node has seen the admission before", a.Signer.Short(), tok.Expires.UTC().Format(time.RFC3339))}
	}
	return nil
}

func (l *Ledger) witnessed(a overlay.Admission) bool {
	w, ok := l.trust.witnesses[a.Node]
	return ok && w.Identity == a.Identity && w.Token == a.Signer
}

func (l *Ledger) acceptRevocation(path string, signed keys.Signed) error {
	r, err := decode[overlay.Revocation](signed)
	if err != nil {
		return err
	}
	if path != overlay.TrustPath("revoked", overlay.KeyPath(r.Key)) {
		return fmt.Errorf("it revokes key %s: a record must stand under its own key", r.Key.Short())
	}
	if err := signed.Verify(r.Signer); err != nil {
		return err
	}
	t := &l.trust
	if !t.authority(r.Signer) {
		return notSigner(r.Signer)
	}
	if slices.Contains(t.policy.Signers, r.Key) && !t.root(r.Signer) {
		return fmt.Errorf("key %s stands in the configuration: only another such key revokes it", r.Key.Short())
	}
	t.revoked[r.Key] = r
	return nil
}

func (l *Ledger) acceptSigner(path string, signed keys.Signed) error {
	s, err := decode[overlay.Signer](signed)
	if err != nil {
		return err
	}
	if path != overlay.TrustPath("signers", overlay.KeyPath(s.Key)) {
		return fmt.Errorf("it adds key %s: a record must stand under its own key", s.Key.Short())
	}
	if err := signed.Verify(s.Signer); err != nil {
		return err
	}
	if !l.trust.root(s.Signer) {
		return notSigner(s.Signer)
	}
	l.trust.signers[s.Key] = s
	return nil
}

func (l *Ledger) acceptToken(path string, signed keys.Signed) error {
	k, err := decode[overlay.Token](signed)
	if err != nil {
		return err
	}
	if path != overlay.TrustPath("tokens", overlay.KeyPath(k.Key)) {
		return fmt.Errorf("it is for key %s: a record must stand under its own key", k.Key.Short())
	}
	if err := signed.Verify(k.Signer); err != nil {
		return err
	}
	if !l.trust.authority(k.Signer) {
		return notSigner(k.Signer)
	}
	l.trust.tokens[k.Key] = k
	return nil
}

func (l *Ledger) acceptWitness(path string, signed keys.Signed) error {
	w, err := decode[overlay.Witness](signed)
	if err != nil {
		return err
	}
	if path != overlay.TrustPath("seen", w.Node) {
		return fmt.Errorf("it is about node %q: a record must stand under its own name", w.Node)
	}
	if current, err := l.verify(signed, w.Signer); err != nil || !current {
		return err
	}
	l.trust.witnesses[w.Node] = w
	return nil
}

// excluded says why an identity is not the node of a name, although its record may be signed; "" when it is.
func (l *Ledger) excluded(node string, id keys.IdentityKey) error {
	t := &l.trust
	if id == t.self && !t.self.IsZero() {
		return nil // this node speaks for itself to itself
	}
	if r, gone := t.revoked[id]; gone && !without("revocation") {
		return fmt.Errorf("identity %s of node %s was revoked at %s", id.Short(), node, r.Revoked.UTC().Format(time.RFC3339))
	}
	if !t.policy.Locked || without("admission") {
		return nil
	}
	a, ok := t.admissions[node]
	switch {
	case !ok:
		return waiting{overlay.TrustPath("nodes", node), fmt.Sprintf("identity %s of node %s was not admitted by a signer: run `weft trust sign %s` if it is yours", id.Short(), node, node)}
	case a.Identity != id:
		return waiting{overlay.TrustPath("nodes", node), fmt.Sprintf("node %s was admitted as %s, not as %s", node, a.Identity.Short(), id.Short())}
	}
	return l.checkChain(a)
}

// checkChain asks again whether who admitted a node may: a signer that is revoked takes those with it that it admitted.
func (l *Ledger) checkChain(a overlay.Admission) error {
	t := &l.trust
	by := a.Signer
	if a.Slot > 0 {
		tok, ok := t.tokens[a.Signer]
		if !ok {
			return waiting{overlay.TrustPath("tokens", overlay.KeyPath(a.Signer)), fmt.Sprintf("token %s is not known (yet)", a.Signer.Short())}
		}
		by = tok.Signer
	}
	if !t.authority(by) {
		return waiting{overlay.TrustPath("nodes", a.Node), fmt.Sprintf("node %s was admitted by %s, which is no signer (any more): sign it again", a.Node, by.Short())}
	}
	return nil
}

// Forget drops what is pinned and known of a node name, so that the next record under it is taken as the first.
func (l *Ledger) Forget(node string) bool {
	_, pinned := l.pins[node]
	l.forget(node)
	delete(l.pins, node)
	return pinned
}

// forget drops the records of a node.
func (l *Ledger) forget(node string) {
	delete(l.nodes, node)
	delete(l.removals, node)
	for path := range l.records {
		if Owner(path) == node || path == "removed/"+node {
			delete(l.records, path)
			delete(l.floors, path)
			delete(l.endpoints, path)
			delete(l.kems, path)
		}
	}
	for path := range l.rejected { // another identity's may be good now
		if Owner(path) == node {
			r := l.rejected[path]
			r.err = waiting{overlay.TrustPath("nodes", node), r.err.Error()}
			l.rejected[path] = r
		}
	}
}

// Trust is what is known of who is believed, for people.
type Trust struct {
	Policy     Policy
	Admissions map[string]overlay.Admission
	Revoked    map[keys.IdentityKey]overlay.Revocation
	Signers    map[keys.IdentityKey]overlay.Signer
	Tokens     map[keys.IdentityKey]overlay.Token
	Witnesses  map[string]overlay.Witness
}

// Trust returns what is known; the maps are the ledger's own and must not be changed.
func (l *Ledger) Trust() Trust {
	t := &l.trust
	return Trust{t.policy, t.admissions, t.revoked, t.signers, t.tokens, t.witnesses}
}

// Revoked reports whether an identity was revoked.
func (l *Ledger) Revoked(id keys.IdentityKey) bool { _, gone := l.trust.revoked[id]; return gone }

// Pins are the identities of node names, as first seen or admitted; the map is a copy.
func (l *Ledger) Pins() map[string]keys.IdentityKey { return maps.Clone(l.pins) }

// RejectedNodes are the paths of node records that are refused.
func (l *Ledger) RejectedNodes() []string {
	var out []string
	for path := range l.rejected {
		if strings.HasPrefix(path, "nodes/") {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}

// RejectedIdentity is the identity in a refused node record that is signed by it and says its own name.
func (l *Ledger) RejectedIdentity(path string) (string, keys.IdentityKey, error) {
	signed, err := keys.Envelope{Kind: KindNode, Cluster: l.cluster, Path: path}.Open(l.rejected[path].value)
	if err != nil {
		return "", keys.IdentityKey{}, err
	}
	n, err := decode[overlay.Node](signed)
	if err != nil {
		return "", keys.IdentityKey{}, err
	}
	if path != "nodes/"+n.Name {
		return "", keys.IdentityKey{}, fmt.Errorf("it names node %q", n.Name)
	}
	return n.Name, n.Identity, signed.Verify(n.Identity)
}
