package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"weft/consul"
	"weft/keys"
	"weft/keys/store"
	"weft/pkg/api"
	"weft/pkg/config"
	"weft/pkg/ledger"
	"weft/pkg/overlay"
)

const trustDir = "trust"

// trustPolicy reads the operator's word.
func trustPolicy(cfg config.Trust) (p ledger.Policy, err error) {
	p.Locked = cfg.Mode == config.TrustLocked
	for _, s := range cfg.Signers {
		k, err := keys.ParseIdentityKey(s)
		if err != nil {
			return p, fmt.Errorf("trust.signers: %w", err)
		}
		p.Signers = append(p.Signers, k)
	}
	return p, nil
}

// trustLoop does what follows from records of trust: this node admits itself with its token, testifies to what others
// did with theirs, and signs again what a revoked node has signed.
func (a *Agent) trustLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.trustKick:
		case <-time.After(5 * time.Second):
		}
		a.mu.Lock()
		ready := a.joined && a.ledger != nil && a.delivered[trustDir]
		a.mu.Unlock()
		if !ready {
			continue
		}
		err := errors.Join(a.useToken(ctx), a.testify(ctx), a.adoptRevoked(ctx))
		switch {
		case ctx.Err() != nil:
		case err != nil:
			a.note("trust", fmt.Sprintf("%v; retrying", err))
		default:
			a.note("trust", a.ownTrust())
		}
	}
}

// ownTrust says what is wrong with this node's own standing.
func (a *Agent) ownTrust() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	self, id := a.opt.Config.NodeName, a.identity.Public()
	t := a.ledger.Trust()
	if a.ledger.Revoked(id) {
		return "this node's identity was revoked: the others do not speak with it; to take it in again run `weft leave --purge` on it and admit its new identity"
	}
	if !a.policy.Locked {
		return ""
	}
	if ad, ok := t.Admissions[self]; !ok || ad.Identity != id {
		return fmt.Sprintf("this node is not admitted, so the others do not speak with it: run `weft trust sign %s` on any node (identity %s), or give it a join token", self, id)
	}
	if len(t.Policy.Signers)+len(t.Signers) < 2 {
		return "there is only one signer: if its key is lost, no node can be admitted or revoked without changing every node's configuration; add another with `weft trust signer add`"
	}
	return ""
}

// useToken admits this node by its join token.
func (a *Agent) useToken(ctx context.Context) error {
	path := a.opt.Config.JoinTokenFile
	self, id := a.opt.Config.NodeName, a.identity.Public()
	a.mu.Lock()
	t := a.ledger.Trust()
	ad, admitted := t.Admissions[self]
	cluster := a.state.Cluster
	a.mu.Unlock()
	if path == "" || admitted && ad.Identity == id {
		return nil
	}
	text, err := store.ReadSecret(path)
	if err != nil {
		return fmt.Errorf("use join token: %w", err)
	}
	tok, err := keys.ParseToken(string(bytes.TrimSpace(text)))
	if err != nil {
		return fmt.Errorf("use join token of %s: %w", path, err)
	}
	if tok.Cluster != cluster {
		return fmt.Errorf("use join token of %s: it is for cluster %s, this is %s", path, tok.Cluster, cluster)
	}
	key := tok.Key.Public()
	a.mu.Lock()
	made, ok := t.Tokens[key]
	a.mu.Unlock()
	switch {
	case !ok:
		return fmt.Errorf("use join token %s: its record is not in Consul", key.Short())
	case time.Now().After(made.Expires):
		return fmt.Errorf("use join token %s: it expired at %s: make another with `weft trust token create`", key.Short(), made.Expires.UTC().Format(time.RFC3339))
	}
	for slot := 1; slot <= made.Uses; slot++ {
		err := a.takeSlot(ctx, key, slot, self)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		value, err := keys.Envelope{Kind: ledger.KindAdmission, Cluster: cluster, Path: overlay.TrustPath("nodes", self)}.Seal(tok.Key,
			overlay.Admission{Node: self, Identity: id, Admitted: time.Now().UTC().Truncate(time.Second), Signer: key, Slot: slot, Revision: a.trustRevision("nodes", self)})
		if err != nil {
			return err
		}
		return a.writeTrust(ctx, overlay.TrustPath("nodes", self), value)
	}
	return fmt.Errorf("use join token %s: all its %d uses are taken: make another with `weft trust token create`", key.Short(), made.Uses)
}

// takeSlot claims one use of a token; os.ErrExist when another node has it. The claim only keeps honest nodes apart: what
// counts is the slot in the admission.
func (a *Agent) takeSlot(ctx context.Context, token keys.IdentityKey, slot int, node string) error {
	path := "slots/" + overlay.KeyPath(token) + "/" + strconv.Itoa(slot)
	value, err := json.Marshal(map[string]string{"node": node})
	if err != nil {
		return err
	}
	err = a.consul.Txn(ctx, consul.CAS(path, value, 0))
	if !errors.Is(err, consul.ErrConflict) {
		return err
	}
	p, err := a.consul.Get(ctx, path)
	if err != nil {
		return err
	}
	if !bytes.Equal(p.Value, value) {
		return os.ErrExist
	}
	return nil
}

// trustRevision is the next revision of a record below trust/.
func (a *Agent) trustRevision(part ...string) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ledger.Revision(overlay.TrustPath(part...)) + 1
}

// writeTrust puts a record before the ledger and, if it is good, into Consul.
func (a *Agent) writeTrust(ctx context.Context, path string, value []byte) error {
	a.offer([]consul.Pair{{Path: path, Value: value}})
	a.mu.Lock()
	r, ok := a.ledger.Get(path)
	why := a.ledger.Why(path)
	a.mu.Unlock()
	if !ok || !bytes.Equal(r.Value, value) {
		return fmt.Errorf("record %s is not good: %s", path, why)
	}
	return a.consul.Txn(ctx, consul.Set(path, value))
}

// testify keeps for those who come later that a token's use was in time.
func (a *Agent) testify(ctx context.Context) error {
	self := a.opt.Config.NodeName
	a.mu.Lock()
	t := a.ledger.Trust()
	var todo []overlay.Admission
	for name, ad := range t.Admissions {
		w, ok := t.Witnesses[name]
		if ad.Slot > 0 && name != self && (!ok || w.Identity != ad.Identity || w.Token != ad.Signer) {
			todo = append(todo, ad)
		}
	}
	mine, admitted := t.Admissions[self]
	admitted = admitted && mine.Identity == a.identity.Public()
	cluster := a.state.Cluster
	a.mu.Unlock()
	if !admitted {
		return nil // nobody would believe it
	}
	var errs []error
	for _, ad := range todo {
		path := overlay.TrustPath("seen", ad.Node)
		value, err := keys.Envelope{Kind: ledger.KindWitness, Cluster: cluster, Path: path}.Seal(a.identity, overlay.Witness{Node: ad.Node,
			Identity: ad.Identity, Token: ad.Signer, Seen: time.Now().UTC().Truncate(time.Second), Signer: self, Revision: a.trustRevision("seen", ad.Node)})
		if err != nil {
			return err
		}
		errs = append(errs, a.writeTrust(ctx, path, value))
	}
	return errors.Join(errs...)
}

// adoptRevoked signs the networks again that a revoked node has signed last: nodes that come later would refuse them.
func (a *Agent) adoptRevoked(ctx context.Context) error {
	a.mu.Lock()
	var nodes []string
	for name, pin := range a.pinsLocked() {
		if a.ledger.Revoked(pin) {
			nodes = append(nodes, name)
		}
	}
	a.mu.Unlock()
	for _, name := range nodes {
		if name == a.opt.Config.NodeName {
			continue
		}
		if err := a.adoptSignatures(ctx, name); err != nil && !errors.Is(err, consul.ErrConflict) {
			return err
		}
	}
	return nil
}

func (a *Agent) pinsLocked() map[string]keys.IdentityKey {
	return a.ledger.Pins()
}

// restoreTrust puts back records of trust that are missing from Consul: nobody deletes them.
func (a *Agent) restoreTrust(ctx context.Context, pairs []consul.Pair) {
	there := map[string]bool{}
	for _, p := range pairs {
		there[p.Path] = true
	}
	a.mu.Lock()
	records := a.ledger.Shared()
	a.mu.Unlock()
	for _, r := range records {
		if !strings.HasPrefix(r.Path, trustDir+"/") || there[r.Path] {
			continue
		}
		switch err := a.consul.Txn(ctx, consul.CAS(r.Path, r.Value, 0)); {
		case err == nil:
			a.log.Warn("record of trust vanished from Consul: written again", "path", r.Path)
		case !errors.Is(err, consul.ErrConflict) && ctx.Err() == nil:
			a.log.Warn("record of trust vanished from Consul and could not be written again", "path", r.Path, "err", err)
		}
	}
}

// Trust implements apiserver.Trust.
func (a *Agent) Trust(context.Context) (api.Trust, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ledger == nil {
		return api.Trust{}, apiErr(api.Unavailable, "this node has not joined a cluster yet: see `weft status`")
	}
	t := a.ledger.Trust()
	out := api.Trust{Mode: config.TrustOpen, Cluster: a.ledger.Cluster(), Revisions: map[string]uint64{}}
	if t.Policy.Locked {
		out.Mode = config.TrustLocked
	}
	for _, k := range t.Policy.Signers {
		out.Signers = append(out.Signers, api.TrustKey{Key: k.String(), Name: "from the configuration", Revoked: a.ledger.Revoked(k)})
	}
	for k, s := range t.Signers {
		out.Signers = append(out.Signers, api.TrustKey{Key: k.String(), Name: s.Name, By: s.Signer.Short(), Revoked: a.ledger.Revoked(k)})
	}
	for k, tok := range t.Tokens {
		x := api.TrustToken{Key: k.String(), Uses: tok.Uses, Expires: tok.Expires, Revoked: a.ledger.Revoked(k)}
		for _, ad := range t.Admissions {
			if ad.Signer == k {
				x.Used++
			}
		}
		out.Tokens = append(out.Tokens, x)
	}
	known := map[string]bool{}
	for name, pin := range a.pinsLocked() {
		known[name] = true
		out.Nodes = append(out.Nodes, trustNode(t, name, pin, a.ledger.Revoked(pin)))
	}
	for _, path := range a.ledger.RejectedNodes() {
		name, id, err := a.ledger.RejectedIdentity(path)
		if err == nil && !known[name] {
			out.Nodes = append(out.Nodes, api.TrustNode{Name: name, Identity: id.String(), State: "waiting", Revoked: a.ledger.Revoked(id)})
		} else if err == nil && known[name] {
			out.Nodes = append(out.Nodes, api.TrustNode{Name: name, Identity: id.String(), State: "refused: " + oneLine(a.ledger.Why(path)), Revoked: a.ledger.Revoked(id)})
		}
	}
	for _, r := range a.ledger.Shared() {
		if strings.HasPrefix(r.Path, trustDir+"/") {
			out.Revisions[r.Path] = r.Revision
		}
	}
	slices.SortFunc(out.Nodes, func(x, y api.TrustNode) int {
		return strings.Compare(x.Name+x.Identity, y.Name+y.Identity)
	})
	slices.SortFunc(out.Tokens, func(x, y api.TrustToken) int { return x.Expires.Compare(y.Expires) })
	return out, nil
}

func trustNode(t ledger.Trust, name string, pin keys.IdentityKey, revoked bool) api.TrustNode {
	n := api.TrustNode{Name: name, Identity: pin.String(), State: "pinned", Revoked: revoked}
	ad, ok := t.Admissions[name]
	switch {
	case revoked:
		n.State = "revoked"
	case ok && ad.Identity == pin && ad.Slot > 0:
		n.State, n.By = "admitted", "token "+ad.Signer.Short()
	case ok && ad.Identity == pin:
		n.State, n.By = "admitted", ad.Signer.Short()
	case t.Policy.Locked:
		n.State = "not admitted"
	}
	return n
}

// PutTrust implements apiserver.Trust: a record that an operator signed elsewhere.
func (a *Agent) PutTrust(ctx context.Context, r api.TrustRecord) error {
	a.mu.Lock()
	joined := a.joined
	a.mu.Unlock()
	if !joined {
		return apiErr(api.Unavailable, "records of trust need Consul, and this node has not joined yet: see `weft status`")
	}
	if !strings.HasPrefix(r.Path, trustDir+"/") {
		return apiErr(api.Invalid, "%q is no record of trust", r.Path)
	}
	if err := a.writeTrust(ctx, r.Path, []byte(r.Value)); err != nil {
		if e := consulErr(err); !errors.Is(err, os.ErrPermission) && e != nil && strings.Contains(err.Error(), "is not good") {
			return apiErr(api.Invalid, "%s", oneLine(err.Error()))
		}
		return consulErr(err)
	}
	a.log.Info("record of trust accepted", "path", r.Path)
	return nil
}

// ForgetNode implements apiserver.Trust: what this node has pinned of a name is dropped.
func (a *Agent) ForgetNode(_ context.Context, name string) error {
	name = overlay.CanonicalName(name)
	if name == a.opt.Config.NodeName {
		return apiErr(api.Invalid, "%s is this node: it knows itself", name)
	}
	a.mu.Lock()
	if a.ledger == nil || !a.ledger.Forget(name) {
		a.mu.Unlock()
		return apiErr(api.NotFound, "no identity of a node %q is known here: see `weft node ls`", name)
	}
	clear(a.readAt)
	a.changedLocked()
	a.mu.Unlock()
	a.log.Warn("identity of a node forgotten: the next one under its name is believed", "node", name)
	return a.rereadNodes()
}

// rereadNodes reads all node records again.
func (a *Agent) rereadNodes() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	pairs, err := a.consul.List(ctx, consul.NodesDir)
	if err != nil {
		return consulErr(err)
	}
	a.offer(pairs)
	return nil
}
