package kernel

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/pkg/kstate"
)

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func addr(it kstate.Addr) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(it.Prefix)}
	if it.Prefix.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // it is unique by construction, and must work at once
	}
	if it.Prefix.Addr().IsLinkLocalUnicast() && it.Prefix.Addr().Is6() {
		a.Scope = unix.RT_SCOPE_LINK
	}
	return a
}

func fdb(it kstate.FDB, l netlink.Link) *netlink.Neigh {
	n := &netlink.Neigh{LinkIndex: l.Attrs().Index, Family: unix.AF_BRIDGE, HardwareAddr: it.MAC[:],
		Flags: unix.NTF_SELF, State: unix.NUD_PERMANENT | unix.NUD_NOARP, IP: it.Dst.AsSlice()}
	if it.Master {
		n.Flags, n.State, n.IP = unix.NTF_MASTER, unix.NUD_NOARP, nil
	}
	return n
}

func neigh(it kstate.Neigh, l netlink.Link) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: l.Attrs().Index, HardwareAddr: it.MAC[:], State: unix.NUD_PERMANENT, IP: it.IP.AsSlice()}
}

func route(it kstate.Route, link int) *netlink.Route {
	r := &netlink.Route{LinkIndex: link, Dst: ipNet(it.Dst), Gw: it.Via.AsSlice(), Src: it.Src.AsSlice(),
		Protocol: kstate.RouteProtocol, Table: unix.RT_TABLE_MAIN}
	if !it.Via.IsValid() && it.Dst.Addr().Is4() {
		r.Scope = netlink.SCOPE_LINK
	}
	return r
}

// sharedMetric is added to an interface's index to give a route's metric where another program's route to the same
// destination is there: ours yields to it, and those of several networks do not meet.
const sharedMetric = 8700

// addRoute adds a route. In a namespace of ours it replaces what leads to the same destination; elsewhere another
// program's route stays, and ours goes behind it.
func (s *space) addRoute(it kstate.Route, l netlink.Link) error {
	r := route(it, l.Attrs().Index)
	if ours(s.name) {
		return s.nl.RouteReplace(r)
	}
	if err := s.removeRoute(it); err != nil && !errors.Is(translate(err), os.ErrNotExist) {
		return err
	}
	err := s.nl.RouteAdd(r)
	if errors.Is(err, unix.EEXIST) {
		r.Priority = sharedMetric + l.Attrs().Index
		err = s.nl.RouteAdd(r)
	}
	return err
}

// removeRoute removes a route by its destination: all there are in a namespace of ours, elsewhere only ours on its link.
func (s *space) removeRoute(it kstate.Route) error {
	family := byte(unix.AF_INET)
	if it.Dst.Addr().Is6() {
		family = unix.AF_INET6
	}
	list, err := s.routes(context.Background(), family)
	if err != nil {
		return err
	}
	index := 0
	if l, err := s.nl.LinkByName(it.Link); err == nil {
		index = l.Attrs().Index
	}
	var errs []error
	for _, r := range list {
		if r.dst != it.Dst || r.protocol == unix.RTPROT_KERNEL {
			continue
		}
		if !ours(s.name) && (r.protocol != kstate.RouteProtocol || r.index != index) {
			continue
		}
		del := route(it, r.index)
		del.Gw, del.Src, del.Scope, del.Priority, del.Protocol = nil, nil, netlink.SCOPE_NOWHERE, r.metric, netlink.RouteProtocol(r.protocol)
		if err := translate(s.nl.RouteDel(del)); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
