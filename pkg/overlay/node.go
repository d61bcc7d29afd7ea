package overlay

import (
	"net/netip"
	"time"

	"weft/keys"
)

// WireGuardKey is one generation of a node's WireGuard key with the UDP port it listens on.
type WireGuardKey struct {
	// Generation counts from 1; generations alternate over the node's two ports.
	Generation int            `json:"generation"`
	PublicKey  keys.PublicKey `json:"publicKey"`
	Port       uint16         `json:"port"`
	// KEM is what others encapsulate to, to agree with this node on a preshared key for this generation.
	KEM keys.KEMKey `json:"kem,omitempty"`
}

// Node is one host, as its signed record in weft/nodes/<node> holds it; only that node writes it.
type Node struct {
	Name     string           `json:"name"`
	Identity keys.IdentityKey `json:"identity"`
	// WireGuard holds the live key generations, the newest last; never empty in a valid record.
	WireGuard []WireGuardKey `json:"wireguard"`
	// Underlay holds the addresses at which others reach this node, the best first; never empty in a valid record.
	Underlay []netip.Addr `json:"underlay"`
	// UnderlayMTU is the MTU in bytes of the interface that carries Underlay[0].
	UnderlayMTU int `json:"underlayMtu"`
	// VTEP is this node's tunnel address inside the mesh.
	VTEP       netip.Addr `json:"vtep"`
	VXLANPort  uint16     `json:"vxlanPort"`
	Datacenter string     `json:"datacenter"`
	Version    string     `json:"version"`
	// Backend is "kernel" or "engine".
	Backend string `json:"backend"`
	// Left is set in the signed goodbye: the node is gone by its own word and its leases may be freed.
	Left     time.Time `json:"left,omitzero"`
	Revision uint64    `json:"revision"`
}

// Generation finds one of the node's live key generations.
func (n Node) Generation(g int) (WireGuardKey, bool) {
	for _, k := range n.WireGuard {
		if k.Generation == g {
			return k, true
		}
	}
	return WireGuardKey{}, false
}

// Present reports whether the node has not said goodbye.
func (n Node) Present() bool { return n.Left.IsZero() }
