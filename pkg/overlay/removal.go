package overlay

import (
	"fmt"
	"time"

	"weft/keys"
)

// Removal is another node's signed word that a node is gone, in weft/removed/<node>: an operator ran `weft node rm` on
// Signer. It covers the node's records up to NodeRevision; a node that comes back publishes a higher one and is present
// again.
type Removal struct {
	Node         string           `json:"node"`
	Identity     keys.IdentityKey `json:"identity"`
	NodeRevision uint64           `json:"nodeRevision"`
	Removed      time.Time        `json:"removed"`
	Signer       string           `json:"signer"`
	Revision     uint64           `json:"revision"`
}

// Validate checks what a removal read from Consul must satisfy.
func (r Removal) Validate() error {
	if err := firstError(checkStoredName(NodeName, r.Node), checkStoredName(NodeName, r.Signer), checkRevision(r.Revision)); err != nil {
		return fmt.Errorf("removal of node %q: %w", r.Node, err)
	}
	switch {
	case r.Node == r.Signer:
		return fmt.Errorf("removal of node %q: a node says goodbye in its own record", r.Node)
	case r.Identity.IsZero() || r.Removed.IsZero() || r.NodeRevision == 0:
		return fmt.Errorf("removal of node %q: identity, time and revision of the node must be given", r.Node)
	}
	return nil
}
