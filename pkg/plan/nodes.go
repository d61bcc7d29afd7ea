package plan

import (
	"maps"
	"net/netip"
	"slices"

	"weft/keys"
	"weft/pkg/overlay"
)

// peer is another present node, and how far this node can use it.
type peer struct {
	overlay.Node
	name string
	// mesh: it has a VTEP and keys that nobody else claims, so WireGuard reaches it.
	mesh bool
	// plain is its first IPv4 underlay address, the zero Addr when it has none: plain VXLAN runs over IPv4.
	plain netip.Addr
	// vxlan: it listens on the VXLAN port of this node.
	vxlan bool
}

// sessions are the generations that this node and p both have, the oldest first: what either has alone, nobody answers.
func (b *builder) sessions(p *peer) []session {
	var out []session
	for _, own := range b.self.WireGuard {
		if their, ok := p.Generation(own.Generation); ok && b.device(own) {
			out = append(out, session{own, their})
		}
	}
	return out
}

// session is a generation of this node's with the same one of a peer's.
type session struct{ own, their overlay.WireGuardKey }

// carrier is the session that traffic to p takes; ok is false when there is none.
func (b *builder) carrier(p *peer, sessions []session) (s session, ok bool) {
	for _, s := range sessions {
		if s.own.Generation == b.self.Carried[p.name] {
			return s, true
		}
	}
	if len(sessions) == 0 {
		return s, false
	}
	return sessions[0], true
}

// resolveNodes finds the present nodes and who may be in the mesh.
func (b *builder) resolveNodes() {
	claims := nodeClaims{vteps: map[netip.Addr]string{}, keys: b.ownKeys()}
	if b.self.VTEP.IsValid() {
		claims.vteps[b.self.VTEP] = b.self.Node
	}
	for _, name := range slices.Sorted(maps.Keys(b.snap.Nodes)) {
		n := b.snap.Nodes[name]
		if name == b.self.Node || !n.Present() {
			continue
		}
		p := &peer{Node: n, name: name, plain: firstIPv4(n.Underlay)}
		b.peers, b.peerOf[name] = append(b.peers, p), p
		if why := claims.take(name, n); why != "" {
			b.problem("node "+name, "%s: it is left out of the mesh, encrypted networks do not reach it", why)
		} else {
			p.mesh = true
		}
		// A record without a port predates the check; then the cluster's port is assumed.
		p.vxlan = n.VXLANPort == 0 || n.VXLANPort == b.self.VXLANPort
		if !p.vxlan {
			b.problem("node "+name, "it uses VXLAN port %d, this node %d: its endpoints are left out; set vxlan.port to "+
				"the same number on all nodes", n.VXLANPort, b.self.VXLANPort)
		}
	}
	for _, set := range b.snap.Endpoints {
		if set.Node == b.self.Node || len(set.Endpoints) == 0 {
			continue
		}
		if n, known := b.snap.Nodes[set.Node]; !known {
			b.problem("node "+set.Node, "it has endpoints but no node record: they are left out; start its agent, or run "+
				"\"weft node rm %s\" if it is gone", set.Node)
		} else if n.Present() {
			b.sets[set.NetworkID] = append(b.sets[set.NetworkID], set)
		}
	}
}

// nodeClaims says which node has a VTEP or a key.
type nodeClaims struct {
	vteps map[netip.Addr]string
	keys  map[keys.PublicKey]string
}

// take enters the claims of a node, or says why it cannot be in the mesh; then it claims nothing and harms no other.
func (c nodeClaims) take(name string, n overlay.Node) (why string) {
	const cure = " (stop one of the two, wipe its data_dir and start it again)"
	switch {
	case len(n.WireGuard) == 0:
		return "its record holds no WireGuard key (start its agent to write it again)"
	case len(n.Underlay) == 0:
		return "its record holds no underlay address (set advertise on it)"
	case !n.VTEP.Is4():
		return "its record holds no IPv4 VTEP address (start its agent to lease one)"
	}
	if owner, taken := c.vteps[n.VTEP]; taken {
		return "its VTEP " + n.VTEP.String() + " is also that of node " + owner + cure
	}
	for _, k := range n.WireGuard {
		if owner, taken := c.keys[k.PublicKey]; taken {
			return "its WireGuard key " + k.PublicKey.Short() + " is also that of node " + owner + cure
		}
	}
	c.vteps[n.VTEP] = name
	for _, k := range n.WireGuard {
		c.keys[k.PublicKey] = name
	}
	return ""
}

func firstIPv4(addrs []netip.Addr) netip.Addr {
	for _, a := range addrs {
		if a.Is4() {
			return a
		}
	}
	return netip.Addr{}
}
