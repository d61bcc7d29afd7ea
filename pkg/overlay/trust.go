package overlay

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"weft/keys"
)

// The records of trust, below weft/trust/. Each is signed by the key it names as its signer. docs/trust.md says how they
// hang together.

// Admission says that an identity is the node of a name: weft/trust/nodes/<node>. A signer makes it, or the holder of a
// join token.
type Admission struct {
	Node     string           `json:"node"`
	Identity keys.IdentityKey `json:"identity"`
	Admitted time.Time        `json:"admitted"`
	Signer   keys.IdentityKey `json:"signer"`
	// Slot, from 1, says which use of a token this is; 0 when a signer admitted.
	Slot     int    `json:"slot,omitempty"`
	Revision uint64 `json:"revision"`
}

// Revocation says that a key counts no more: a node's identity, a token, or a signer. weft/trust/revoked/<key>.
type Revocation struct {
	Key     keys.IdentityKey `json:"key"`
	Name    string           `json:"name"` // of what is revoked, for people
	Revoked time.Time        `json:"revoked"`
	Signer  keys.IdentityKey `json:"signer"`

	Revision uint64 `json:"revision"`
}

// Signer makes another key a signer, on the word of one that stands in the agents' configuration:
// weft/trust/signers/<key>.
type Signer struct {
	Key      keys.IdentityKey `json:"key"`
	Name     string           `json:"name"`
	Added    time.Time        `json:"added"`
	Signer   keys.IdentityKey `json:"signer"`
	Revision uint64           `json:"revision"`
}

// Token lets the holder of a key admit nodes: weft/trust/tokens/<key>.
type Token struct {
	Key      keys.IdentityKey `json:"key"`
	Uses     int              `json:"uses"`
	Created  time.Time        `json:"created"`
	Expires  time.Time        `json:"expires"`
	Signer   keys.IdentityKey `json:"signer"`
	Revision uint64           `json:"revision"`
}

// Witness is an accepted node's word that it saw the admission of another by a token while that was valid:
// weft/trust/seen/<node>. Nodes that come after the token has expired believe it.
type Witness struct {
	Node     string           `json:"node"`
	Identity keys.IdentityKey `json:"identity"`
	Token    keys.IdentityKey `json:"token"`
	Seen     time.Time        `json:"seen"`
	Signer   string           `json:"signer"` // a node
	Revision uint64           `json:"revision"`
}

// MaxUses bounds the uses of one token, MaxTTL its life.
const (
	MaxUses = 1000
	MaxTTL  = 30 * 24 * time.Hour
)

// KeyPath is an identity key as part of a path: base64 has slashes.
func KeyPath(k keys.IdentityKey) string { return hex.EncodeToString(k[:]) }

// TrustPath joins a path below trust/.
func TrustPath(part ...string) string { return "trust/" + strings.Join(part, "/") }

func checkTrust(what string, revision uint64, at time.Time, ks ...keys.IdentityKey) error {
	for _, k := range ks {
		if k.IsZero() {
			return fmt.Errorf("%s: a key is missing", what)
		}
	}
	if at.IsZero() {
		return fmt.Errorf("%s: the time is missing", what)
	}
	if err := checkRevision(revision); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Validate reports what makes this record unusable, as the first problem found, on one line; nil when nothing does.
func (a Admission) Validate() error {
	if err := checkStoredName(NodeName, a.Node); err != nil {
		return fmt.Errorf("admission: %w", err)
	}
	if a.Slot < 0 || a.Slot > MaxUses {
		return fmt.Errorf("admission of node %q: slot %d is outside 0 to %d", a.Node, a.Slot, MaxUses)
	}
	if a.Identity == a.Signer {
		return fmt.Errorf("admission of node %q: a node cannot admit itself", a.Node)
	}
	return checkTrust("admission of node "+a.Node, a.Revision, a.Admitted, a.Identity, a.Signer)
}

// Validate reports what makes this record unusable, as the first problem found, on one line; nil when nothing does.
func (r Revocation) Validate() error {
	if err := checkText("name", r.Name, maxText); err != nil {
		return fmt.Errorf("revocation: %w", err)
	}
	return checkTrust("revocation of "+r.Name, r.Revision, r.Revoked, r.Key, r.Signer)
}

// Validate reports what makes this record unusable, as the first problem found, on one line; nil when nothing does.
func (s Signer) Validate() error {
	if err := checkText("name", s.Name, maxText); err != nil {
		return fmt.Errorf("signer: %w", err)
	}
	if s.Key == s.Signer {
		return errors.New("signer: a key cannot add itself")
	}
	return checkTrust("signer "+s.Name, s.Revision, s.Added, s.Key, s.Signer)
}

// Validate reports what makes this record unusable, as the first problem found, on one line; nil when nothing does.
func (t Token) Validate() error {
	switch {
	case t.Uses < 1 || t.Uses > MaxUses:
		return fmt.Errorf("token: %d uses are outside 1 to %d", t.Uses, MaxUses)
	case !t.Expires.After(t.Created) || t.Expires.Sub(t.Created) > MaxTTL:
		return fmt.Errorf("token: it must expire within %v", MaxTTL)
	}
	return checkTrust("token", t.Revision, t.Created, t.Key, t.Signer)
}

// Validate reports what makes this record unusable, as the first problem found, on one line; nil when nothing does.
func (w Witness) Validate() error {
	if err := firstError(checkStoredName(NodeName, w.Node), checkStoredName(NodeName, w.Signer)); err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	if w.Node == w.Signer {
		return fmt.Errorf("witness: node %q cannot be its own", w.Node)
	}
	return checkTrust("witness of node "+w.Node, w.Revision, w.Seen, w.Identity, w.Token)
}
