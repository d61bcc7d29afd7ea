package overlay

import (
	"net/netip"
	"time"
)

// NetworkID names one network for its whole life: 12 lower-case hexadecimal digits, random at creation. Kernel
// names that could clash are derived from it, never from the name. The zero value means "none".
type NetworkID string

// VNI is a VXLAN network identifier (RFC 7348 section 5), 24 bits. Zero means "none".
type VNI uint32

const (
	// MinVNI is the first VNI weft hands out; Swarm counts from 4,096 up, so both can share a host and a port.
	MinVNI VNI = 1 << 23
	// MaxVNI is the largest VNI (24 bits).
	MaxVNI VNI = 1<<24 - 1
)

// Network is one virtual layer-2 network of the cluster, as its signed record in weft/networks/<name> holds it.
// ID, VNI, Subnets and Encrypted of an id never change.
type Network struct {
	ID   NetworkID `json:"id"`
	Name string    `json:"name"`
	VNI  VNI       `json:"vni"`
	// Subnets holds the address ranges; this version creates exactly one, IPv4.
	Subnets []netip.Prefix `json:"subnets"`
	// IPRange bounds automatic allocation inside the subnet; the zero value means the whole subnet.
	IPRange netip.Prefix `json:"ipRange,omitzero"`
	// Gateway is answered locally on every node; it is inside the first subnet.
	Gateway   netip.Addr `json:"gateway"`
	Encrypted bool       `json:"encrypted"`
	// Internal networks have no egress.
	Internal  bool `json:"internal"`
	Multicast bool `json:"multicast"`
	// MTU is the endpoint MTU in bytes, fixed at creation.
	MTU int `json:"mtu"`
	// AllowOverlap records that the creator accepted a subnet that another network also uses.
	AllowOverlap bool              `json:"allowOverlap,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Created      time.Time         `json:"created,omitzero"`
	// Deleted marks a tombstone: the network is gone, and says so for TombstoneAge.
	Deleted time.Time `json:"deleted,omitzero"`
	// Replaces holds the ids of deleted networks of this name, the newest last, at most MaxReplaces: it tells a node that
	// never saw their tombstones that they are gone.
	Replaces []NetworkID `json:"replaces,omitempty"`
	// Signer is the node that signed this revision.
	Signer   string `json:"signer"`
	Revision uint64 `json:"revision"`
}

// TombstoneAge is how long a deleted network's record stays, so that no agent resurrects it.
const TombstoneAge = 7 * 24 * time.Hour

// MaxReplaces bounds Network.Replaces.
const MaxReplaces = 32

// Alive reports whether the record is not a tombstone.
func (n Network) Alive() bool { return n.Deleted.IsZero() }

// Subnet is the first subnet, the zero Prefix when there is none.
func (n Network) Subnet() netip.Prefix {
	if len(n.Subnets) == 0 {
		return netip.Prefix{}
	}
	return n.Subnets[0]
}
