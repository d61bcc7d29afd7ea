package kstate

import (
	"fmt"
	"net/netip"
	"strings"

	"weft/pkg/overlay"
)

// NetNS is a named network namespace under /run/netns.
type NetNS struct{ Name string }

func (n NetNS) Key() Key       { return Key{n.Name, "netns", n.Name} }
func (n NetNS) Stage() Stage   { return StageNamespace }
func (n NetNS) On() string     { return "" }
func (n NetNS) String() string { return "netns " + n.Name }

// Sysctl is a kernel parameter of a namespace; Path is relative to /proc/sys, as in "net/ipv4/ip_forward".
type Sysctl struct{ NS, Path, Value string }

func (s Sysctl) Key() Key       { return Key{s.NS, "sysctl", s.Path} }
func (s Sysctl) Stage() Stage   { return StageFence }
func (s Sysctl) On() string     { return "" }
func (s Sysctl) String() string { return "sysctl " + s.Path + "=" + s.Value }

// LinkKind is the type of a link.
type LinkKind string

// The kinds of link weft makes. A WireGuard link is of KindWireGuard with both backends.
const (
	KindBridge    LinkKind = "bridge"
	KindVXLAN     LinkKind = "vxlan"
	KindVeth      LinkKind = "veth"
	KindWireGuard LinkKind = "wireguard"
)

// Link is a network interface. Which fields count depends on Kind; the others are zero. A veth pair is described once,
// from the end in a weft-n- namespace; the far end (PeerNS, PeerName) carries PeerMAC, PeerMTU (= MTU) and PeerAlias.
type Link struct {
	NS, Name string
	Kind     LinkKind
	MAC      overlay.MAC // zero: not managed
	MTU      int         // bytes; zero: not managed
	// VXLAN: identifier, source address, UDP port, and the namespace whose sockets it uses.
	VNI      overlay.VNI
	Local    netip.Addr
	Port     uint16
	Underlay string
	// veth: the far end.
	PeerNS, PeerName string
	PeerMAC          overlay.MAC // zero: not managed
	PeerAlias        string      // the mark on a far end outside our own namespaces
	// WireGuard: "kernel" or "engine".
	Backend string
}

func (l Link) Key() Key     { return Key{l.NS, "link", l.Name} }
func (l Link) Stage() Stage { return StageLink }
func (l Link) On() string   { return "" }

// identity is what cannot be changed in place.
func (l Link) identity() Link {
	l.MAC, l.MTU, l.PeerMAC, l.PeerAlias = overlay.MAC{}, 0, overlay.MAC{}, ""
	return l
}

// same leaves out of have what l does not manage.
func (l Link) same(have Link) bool {
	if l.MAC.IsZero() {
		have.MAC = l.MAC
	}
	if l.PeerMAC.IsZero() {
		have.PeerMAC = l.PeerMAC
	}
	if l.MTU == 0 {
		have.MTU = 0
	}
	return l == have
}

func (l Link) String() string {
	f := []string{"link " + l.Name, string(l.Kind)}
	add := func(ok bool, format string, a ...any) {
		if ok {
			f = append(f, fmt.Sprintf(format, a...))
		}
	}
	add(!l.MAC.IsZero(), "mac %s", l.MAC)
	add(l.MTU != 0, "mtu %d", l.MTU)
	add(l.VNI != 0, "vni %d local %s port %d underlay %s", l.VNI, l.Local, l.Port, nsName(l.Underlay))
	add(l.PeerName != "", "peer %s@%s", l.PeerName, nsName(l.PeerNS))
	add(!l.PeerMAC.IsZero(), "peermac %s", l.PeerMAC)
	add(l.PeerAlias != "", "peeralias %q", l.PeerAlias)
	add(l.Backend != "", "backend %s", l.Backend)
	return strings.Join(f, " ")
}

// Up says that a link is administratively up. For a far end of a veth, NS is the far end's namespace.
type Up struct{ NS, Link string }

func (u Up) Key() Key       { return Key{u.NS, "up", u.Link} }
func (u Up) Stage() Stage   { return StageUp }
func (u Up) On() string     { return u.Link }
func (u Up) String() string { return "up " + u.Link }

// Port is a link's membership of a bridge with its port flags (linux/if_link.h, IFLA_BRPORT_*).
type Port struct {
	NS, Link, Bridge string
	Learning         bool
	Flood            bool // unknown unicast leaves through it
	McastFlood       bool
	BcastFlood       bool
	Locked           bool
	NeighSuppress    bool
}

func (p Port) Key() Key     { return Key{p.NS, "port", p.Link} }
func (p Port) Stage() Stage { return StageAddress }
func (p Port) On() string   { return p.Link }
func (p Port) String() string {
	s := "port " + p.Link + " bridge " + p.Bridge
	for _, f := range []struct {
		on   bool
		name string
	}{{p.Learning, "learning"}, {p.Flood, "flood"}, {p.McastFlood, "mcast_flood"}, {p.BcastFlood, "bcast_flood"},
		{p.Locked, "locked"}, {p.NeighSuppress, "neigh_suppress"}} {
		if f.on {
			s += " " + f.name
		}
	}
	return s
}

// Addr is an address on a link.
type Addr struct {
	NS, Link string
	Prefix   netip.Prefix
}

func (a Addr) Key() Key       { return Key{a.NS, "addr", a.Link + " " + a.Prefix.String()} }
func (a Addr) Stage() Stage   { return StageAddress }
func (a Addr) On() string     { return a.Link }
func (a Addr) String() string { return "addr " + a.Prefix.String() + " dev " + a.Link }

// FDB is a static forwarding entry. With Master it is the bridge's own ("master static", Dst unset), else the VXLAN
// device's ("self dst VTEP"): each remote MAC needs both, each local one the first.
type FDB struct {
	NS, Link string
	MAC      overlay.MAC
	Dst      netip.Addr
	Master   bool
}

func (f FDB) Key() Key {
	if f.Master {
		return Key{f.NS, "fdb", f.Link + " " + f.MAC.String() + " master"}
	}
	return Key{f.NS, "fdb", f.Link + " " + f.MAC.String() + " self"}
}
func (f FDB) Stage() Stage { return StageForward }
func (f FDB) On() string   { return f.Link }
func (f FDB) String() string {
	if f.Master {
		return "fdb " + f.MAC.String() + " dev " + f.Link + " master static"
	}
	return "fdb " + f.MAC.String() + " dev " + f.Link + " self dst " + f.Dst.String()
}

// Neigh is a permanent neighbour entry.
type Neigh struct {
	NS, Link string
	IP       netip.Addr
	MAC      overlay.MAC
}

func (n Neigh) Key() Key     { return Key{n.NS, "neigh", n.Link + " " + n.IP.String()} }
func (n Neigh) Stage() Stage { return StageForward }
func (n Neigh) On() string   { return n.Link }
func (n Neigh) String() string {
	return "neigh " + n.IP.String() + " dev " + n.Link + " lladdr " + n.MAC.String() + " permanent"
}

// Route is a route of the main table. In namespaces that are not wholly ours it carries RouteProtocol.
type Route struct {
	NS       string
	Dst      netip.Prefix
	Link     string
	Via, Src netip.Addr // zero: none
}

func (r Route) Key() Key     { return Key{r.NS, "route", r.Dst.String()} }
func (r Route) Stage() Stage { return StageRoute }
func (r Route) On() string   { return r.Link }
func (r Route) String() string {
	s := "route " + r.Dst.String()
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	s += " dev " + r.Link
	if r.Src.IsValid() {
		s += " src " + r.Src.String()
	}
	return s
}
