package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"weft/keys"
	"weft/pkg/overlay"
)

// Self is what this node knows of itself, better than any record does.
type Self struct {
	Node string
	// VTEP is the tunnel address, IPv4; the zero value means that none is leased yet: encrypted networks then stay
	// without their overlay part.
	VTEP netip.Addr
	// Underlay is the address at which others reach this node.
	Underlay netip.Addr
	// UnderlayMTU is the MTU in bytes of the interface that carries Underlay; 0 means unknown and checks nothing.
	UnderlayMTU int
	// VXLANPort is the UDP port of VXLAN, the same on all nodes of a cluster.
	VXLANPort uint16
	// Backend is "kernel" or "engine".
	Backend string
	// WireGuard holds the own live key generations, the newest last.
	WireGuard []overlay.WireGuardKey
	// Keepalive is WireGuard's persistent keepalive in seconds, 0 for off.
	Keepalive int
	// WGPorts holds the UDP ports that WireGuard may use, in use or not.
	WGPorts []uint16
	// EgressPool holds all legs of this host; the zero value means no egress.
	EgressPool netip.Prefix
	// Routers and Legs hold this node's own presence and egress leg, by network. A network without a leg has no egress.
	Routers map[overlay.NetworkID]overlay.Router
	Legs    map[overlay.NetworkID]overlay.Leg
	// ForwardHooks names the chains of table ip filter that drop forwarded packets unless a rule of ours accepts them.
	ForwardHooks []string
	// IPv6 says that the kernel has IPv6, BridgeNetfilter that net/bridge/bridge-nf-call-* exist.
	IPv6            bool
	BridgeNetfilter bool
	// Carried says which of the generations that this node and another both have carries the traffic to it, by name. A
	// node that is not in it is reached over the oldest that both have: that is the one that worked before.
	Carried map[string]int
	// Preshared holds the fingerprints of the preshared keys, by the other node's WireGuard key. A peer with which there
	// ought to be one is not made before it is known.
	Preshared map[keys.PublicKey]string
}

// Input is everything that a decision rests on.
type Input struct {
	Self Self
	// Snapshot is what is known of the cluster; nil counts as an incomplete, empty one.
	Snapshot *overlay.Snapshot
	// Leases holds, of claims that are disputed, the age of the claimant's own valid lease: Consul's CreateIndex, lower is
	// older. A claim that is not in it has no lease, or none that is known.
	Leases map[Claim]uint64
	// Local holds the endpoints of this node whose namespace exists; those that are leaving are ignored.
	Local []overlay.LocalEndpoint
}

// Claim is what a node's endpoint record claims of a network.
type Claim struct {
	Network overlay.NetworkID
	Node    string
	Address netip.Addr
}

// Disputed lists the claims to an address or a MAC that more than one endpoint of a network has, sorted.
func Disputed(s *overlay.Snapshot) []Claim {
	type thing struct {
		network overlay.NetworkID
		what    any // netip.Addr or overlay.MAC
	}
	all := map[thing][]Claim{}
	for _, set := range s.Endpoints {
		for _, e := range set.Endpoints {
			c := Claim{set.NetworkID, set.Node, e.Address}
			all[thing{set.NetworkID, e.Address}] = append(all[thing{set.NetworkID, e.Address}], c)
			all[thing{set.NetworkID, e.MAC}] = append(all[thing{set.NetworkID, e.MAC}], c)
		}
	}
	var out []Claim
	for _, cs := range all {
		if len(cs) > 1 {
			out = append(out, cs...)
		}
	}
	slices.SortFunc(out, func(a, b Claim) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), a.Address.Compare(b.Address), cmp.Compare(a.Node, b.Node))
	})
	return slices.Compact(out)
}
