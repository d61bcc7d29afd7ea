package kernel

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"weft/pkg/kstate"
	"weft/pkg/overlay"
	"weft/pkg/wireguard"
)

// elsewhere stands for a namespace that weft has no name for; no wanted item has it.
const elsewhere = "other"

// fallback are the devices that the kernel puts into every namespace when a tunnel module is loaded; they cannot be
// deleted (net.core.fb_tunnels_only_for_init_net).
var fallback = []string{"tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0"}

// ownLinks reads the links of a namespace that is wholly ours, with their bridge membership.
func (o *observer) ownLinks(v *view) error {
	r := resolver{near: v, spaces: o.candidates, taps: o.taps}
	for i := range v.links {
		l := &v.links[i]
		if slices.Contains(fallback, l.name) {
			continue
		}
		if l.up {
			o.put(v.name, kstate.Up{NS: v.name, Link: l.name})
		}
		if l.name == "lo" {
			continue
		}
		it, err := r.link(l)
		if err != nil {
			return err
		}
		o.put(v.name, it)
		if l.bridgePort {
			o.put(v.name, portOf(v, l))
		}
	}
	return nil
}

// candidates are the namespaces that the far end of a link may be in, the likely ones first.
func (o *observer) candidates(l *rawLink) []*view {
	out := []*view{o.byName[kstate.Host], o.byName[kstate.Transit]}
	if e := o.byName[kstate.EndpointPrefix+strings.TrimPrefix(l.name, "e")]; e != nil && l.name != kstate.LegInside {
		out = append([]*view{e}, out...)
	}
	for _, v := range o.views {
		if endpoint(v.name) {
			out = append(out, v)
		}
	}
	return out
}

// resolver describes links of one namespace, finding the far ends by namespace identifiers.
type resolver struct {
	near   *view
	spaces func(l *rawLink) []*view
	taps   taps
	// ids are the identifiers of other namespaces, as seen from near, that were asked for already.
	ids map[*view]int
}

// find is the namespace with an identifier, nil when it is none of ours.
func (r *resolver) find(l *rawLink) (*view, error) {
	if l.nsid == noNSID {
		return r.near, nil
	}
	if r.ids == nil {
		r.ids = map[*view]int{}
	}
	for _, v := range r.spaces(l) {
		if v == nil {
			continue
		}
		id, asked := r.ids[v]
		if !asked {
			var err error
			if id, err = r.near.nsid(v.space); err != nil {
				return nil, err
			}
			r.ids[v] = id
		}
		if id == l.nsid {
			return v, nil
		}
	}
	return nil, nil
}

// link is the item that describes l.
func (r *resolver) link(l *rawLink) (kstate.Link, error) {
	it := kstate.Link{NS: r.near.name, Name: l.name, Kind: kstate.LinkKind(l.kind), MTU: l.mtu}
	switch {
	case l.kind == "bridge":
		it.MAC = l.mac
	case l.kind == "vxlan":
		it.VNI, it.Local, it.Port, it.Underlay = l.vxlan.vni, l.vxlan.local, l.vxlan.port, elsewhere
		v, err := r.find(l)
		if err != nil {
			return it, err
		}
		if v != nil && v != r.near && (v.name != kstate.Transit || r.taps == nil) {
			it.Underlay = v.name // where the engine does VXLAN, one of the kernel's is to be replaced
		}
	case l.kind == "veth":
		return it, r.veth(&it, l)
	case l.kind == "wireguard":
		it.Backend = "kernel"
	case l.kind == "tun" && r.near.name == kstate.Transit && strings.HasPrefix(l.name, kstate.WGPrefix):
		it.Kind, it.Backend = kstate.KindWireGuard, wireguard.EngineName
		if l.vnetHdr { // the engine's own is without
			it.Backend = wireguard.EngineTUNName
		}
	case l.kind == "tun":
		if n := r.taps.find(r.near, l); n != nil {
			it.Kind, it.VNI, it.Local, it.Port, it.Underlay = kstate.KindVXLAN, n.VNI, n.Local, n.Port, kstate.Transit
		}
	}
	return it, nil
}

// veth fills in what the far end shows. What is not managed stays zero: the MAC of an egress leg's far end.
func (r *resolver) veth(it *kstate.Link, l *rawLink) error {
	it.PeerNS, it.PeerName = elsewhere, elsewhere
	v, err := r.find(l)
	if err != nil || v == nil {
		return err
	}
	far := v.byIndex[l.peer]
	if far == nil {
		return nil // moved since the links were listed: the next pass sees it
	}
	it.PeerNS, it.PeerName, it.PeerAlias = v.name, far.name, far.alias
	if endpoint(v.name) {
		it.PeerMAC = far.mac
	}
	if far.mtu != l.mtu {
		it.MTU = 0 // one of the two is not as wanted, whichever; setting it sets both
	}
	return nil
}

func portOf(v *view, l *rawLink) kstate.Port {
	p := kstate.Port{NS: v.name, Link: l.name, Learning: l.port.learning, Flood: l.port.flood, McastFlood: l.port.mcast,
		BcastFlood: l.port.bcast, Locked: l.port.locked, NeighSuppress: l.port.suppress}
	if br := v.byIndex[l.master]; br != nil {
		p.Bridge = br.name
	}
	return p
}

func (o *observer) addrs(v *view, mine func(*rawLink) bool) error {
	list, err := v.space.addrs(o.ctx)
	if err != nil {
		return err
	}
	for _, a := range list {
		l := v.byIndex[a.index]
		if l == nil || !mine(l) || a.prefix.Addr().IsLoopback() {
			continue
		}
		// The kernel gives every interface such an address; only the router's, on the bridge, is ours.
		if a.prefix.Addr().IsLinkLocalUnicast() && a.prefix.Addr().Is6() && (!ours(v.name) || l.name != kstate.Bridge) {
			continue
		}
		o.put(v.name, kstate.Addr{NS: v.name, Link: l.name, Prefix: a.prefix})
	}
	return nil
}

// routes reads the main table. Where the namespace is not wholly ours, a route is ours by its protocol.
func (o *observer) routes(v *view, version int, mine func(*rawLink) bool) error {
	family := byte(unix.AF_INET)
	if version == 6 {
		family = unix.AF_INET6
	}
	list, err := v.space.routes(o.ctx, family)
	if err != nil {
		return err
	}
	metric := map[kstate.Key]int{}
	for _, r := range list {
		if r.protocol == unix.RTPROT_KERNEL || !ours(v.name) && r.protocol != kstate.RouteProtocol {
			continue
		}
		it := kstate.Route{NS: v.name, Dst: r.dst, Link: elsewhere, Via: r.via, Src: r.src}
		if l := v.byIndex[r.index]; l != nil && r.kind == unix.RTN_UNICAST {
			if !mine(l) {
				continue
			}
			it.Link = l.name
		}
		// Of several routes to one destination the kernel uses the one with the least metric.
		if m, seen := metric[it.Key()]; !seen || r.metric < m {
			metric[it.Key()] = r.metric
			o.put(v.name, it)
		}
	}
	return nil
}

func (o *observer) neighs(v *view) error {
	list, err := v.space.neighs(o.ctx, unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	for _, n := range list {
		// Others are learnt, or the kernel's own (multicast, loopback: NUD_NOARP).
		if l := v.byIndex[n.index]; l != nil && n.state == unix.NUD_PERMANENT {
			o.put(v.name, kstate.Neigh{NS: v.name, Link: l.name, IP: n.dst, MAC: n.mac})
		}
	}
	return nil
}

// fdb reads static forwarding entries. A bridge's own entries carry its index as master: static ones are NUD_NOARP, those
// for its ports' own addresses NUD_PERMANENT. A VXLAN device's have a destination.
func (o *observer) fdb(v *view) error {
	if v.name == kstate.Transit {
		return nil
	}
	list, err := v.space.neighs(o.ctx, unix.AF_BRIDGE)
	if err != nil {
		return err
	}
	o.tapFDB(v)
	for _, n := range list {
		l := v.byIndex[n.index]
		if l == nil || n.vlan != 0 || n.mac == (overlay.MAC{}) && !n.dst.IsValid() {
			continue
		}
		switch {
		case n.master != 0:
			if n.state == unix.NUD_NOARP {
				o.put(v.name, kstate.FDB{NS: v.name, Link: l.name, MAC: n.mac, Master: true})
			}
		case l.kind == "vxlan" && n.dst.IsValid() && n.state&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0:
			o.put(v.name, kstate.FDB{NS: v.name, Link: l.name, MAC: n.mac, Dst: n.dst})
		}
	}
	return nil
}
