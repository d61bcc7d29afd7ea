package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/overlay"
)

func isFallback(name string) bool { return slices.Contains(fallback, name) }

// addLink makes a link, or makes the one that is there as wanted.
func (k *Kernel) addLink(ctx context.Context, it kstate.Link) error {
	have, found, err := k.findLink(ctx, it)
	if err != nil {
		return err
	}
	if found && kstate.Recreate(it, have) {
		if err := k.remove(ctx, have); err != nil {
			return fmt.Errorf("remove the link in its place: %w", err)
		}
		found = false
	}
	if !found {
		if err := k.createLink(ctx, it); err != nil {
			return err
		}
		if it.PeerAlias == "" {
			return nil
		}
		have = it
		have.PeerAlias = ""
	}
	return k.changeLink(it, have)
}

// findLink describes the link that has the name, looking for its far end where it is wanted.
func (k *Kernel) findLink(ctx context.Context, it kstate.Link) (have kstate.Link, found bool, err error) {
	v, err := k.view(ctx, it.NS)
	if err != nil {
		return have, false, err
	}
	i := slices.IndexFunc(v.links, func(l rawLink) bool { return l.name == it.Name })
	if i < 0 {
		return have, false, nil
	}
	var far []*view
	for _, name := range slices.Compact([]string{it.PeerNS, it.Underlay}) {
		f, err := k.view(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return have, false, err
		}
		far = append(far, f)
	}
	r := resolver{near: v, spaces: func(*rawLink) []*view { return far }}
	if it.Kind == kstate.KindVXLAN {
		transit, err := k.view(ctx, kstate.Transit)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return have, false, err
		}
		if r.taps, err = k.readTAPs(transit); err != nil {
			return have, false, err
		}
	}
	have, err = r.link(&v.links[i])
	return have, true, err
}

// createLink makes a link directly where it belongs, in one step: a VXLAN device that is made elsewhere and moved would
// for a moment be in the way of another's of the same name.
func (k *Kernel) createLink(ctx context.Context, it kstate.Link) error {
	if it.Kind == kstate.KindWireGuard {
		if it.Backend != "" && it.Backend != k.backend.Name() {
			return fmt.Errorf("this node's WireGuard backend is %q, not %q", k.backend.Name(), it.Backend)
		}
		return k.backend.Create(ctx, it.Name, it.MTU)
	}
	in, err := k.spaces.get(it.NS)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = it.Name, it.MTU
	if !it.MAC.IsZero() {
		attrs.HardwareAddr = it.MAC[:]
	}
	switch it.Kind {
	case kstate.KindBridge:
		return in.createBridge(attrs)
	case kstate.KindVXLAN:
		return k.createVXLAN(it, attrs, in)
	case kstate.KindVeth:
		return k.createVeth(it, attrs, in)
	}
	return fmt.Errorf("links of kind %q cannot be made", it.Kind)
}

// createBridge makes a bridge without multicast snooping (it would swallow neighbour discovery to silent endpoints) and
// without a default VLAN (each static entry would get a twin in it). STP and VLAN filtering
// are off by default, and a kernel built without the latter refuses to be told so.
func (s *space) createBridge(attrs netlink.LinkAttrs) error {
	off, noPVID := false, uint16(0)
	err := s.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off, VlanDefaultPVID: &noPVID})
	if err != nil || attrs.MTU == 0 {
		return err
	}
	// Said once more, or the bridge would follow the smallest of its ports.
	return s.with(attrs.Name, func(l netlink.Link) error { return s.nl.LinkSetMTU(l, attrs.MTU) })
}

// createVXLAN makes the device from its underlay namespace, whose sockets it then uses for good, born in its own.
func (k *Kernel) createVXLAN(it kstate.Link, attrs netlink.LinkAttrs, in *space) error {
	if k.overlay != nil && it.Underlay == kstate.Transit {
		return k.overlay.AddLink(it)
	}
	from, err := k.spaces.get(it.Underlay)
	if err != nil {
		return err
	}
	attrs.Namespace = in.fd()
	err = from.nl.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: int(it.VNI), SrcAddr: it.Local.AsSlice(), Port: int(it.Port)})
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("another VXLAN device uses VNI %d on port %d in %s: %w", it.VNI, it.Port, show(it.Underlay), err)
	}
	return err
}

func (k *Kernel) createVeth(it kstate.Link, attrs netlink.LinkAttrs, in *space) error {
	far, err := k.spaces.get(it.PeerNS)
	if err != nil {
		return fmt.Errorf("far end: %w", err)
	}
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: it.PeerName, PeerNamespace: far.fd(), PeerMTU: uint32(it.MTU)}
	if !it.PeerMAC.IsZero() {
		veth.PeerHardwareAddr = it.PeerMAC[:]
	}
	err = in.nl.LinkAdd(veth)
	if errors.Is(err, unix.EEXIST) && far.deleteMarked(it.PeerName, it.PeerAlias) {
		err = in.nl.LinkAdd(veth)
	}
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("far end: the namespace has an interface %s already: %w", it.PeerName, err)
	}
	if err != nil || !endpoint(it.PeerNS) {
		return err
	}
	return impatient(it.PeerNS, it.PeerName)
}

// impatient makes an endpoint ask for an unknown neighbour every 20 ms instead of every second, for 3 seconds as before.
// The first packet of a new remote endpoint may arrive before this node has its neighbour entry: then the question for
// the answer's way is lost, and the answer waited for a second (measured: 54 of 112 first replies). Only the bridge in
// the network's namespace hears the questions.
func impatient(ns, link string) error {
	return netns.Do(ns, func() error {
		base := "net/ipv4/neigh/" + link + "/"
		for path, value := range map[string]string{"retrans_time_ms": "20", "mcast_solicit": "150"} {
			if err := writeSysctl(kstate.Sysctl{NS: ns, Path: base + path, Value: value}); err != nil {
				return err
			}
		}
		return nil
	})
}

// deleteMarked deletes a link that carries exactly this alias of ours. It is the far end of a pair whose near end is out
// of sight: in a namespace that lost its name, and that something still holds.
func (s *space) deleteMarked(name, alias string) bool {
	l, err := s.nl.LinkByName(name)
	return err == nil && alias != "" && l.Attrs().Alias == alias && s.nl.LinkDel(l) == nil
}

// changeLink sets what can be set on a living link.
func (k *Kernel) changeLink(want, have kstate.Link) error {
	if kstate.Same(want, have) {
		return nil
	}
	setMTU := want.MTU != 0 && have.MTU != want.MTU
	near, err := k.spaces.get(want.NS)
	if err != nil {
		return err
	}
	if err := near.change(want.Name, setMTU, want.MTU, want.MAC, have.MAC, nil); err != nil || want.Kind != kstate.KindVeth {
		return err
	}
	far, err := k.spaces.get(want.PeerNS)
	if err != nil {
		return err
	}
	var alias *string
	if want.PeerAlias != have.PeerAlias {
		alias = &want.PeerAlias
	}
	return far.change(want.PeerName, setMTU, want.MTU, want.PeerMAC, have.PeerMAC, alias)
}

func (s *space) change(name string, setMTU bool, mtu int, mac, had overlay.MAC, alias *string) error {
	setMAC := !mac.IsZero() && mac != had
	if !setMTU && !setMAC && alias == nil {
		return nil
	}
	return s.with(name, func(l netlink.Link) error {
		if setMTU {
			if err := s.nl.LinkSetMTU(l, mtu); err != nil {
				return fmt.Errorf("set MTU of %s: %w", name, err)
			}
		}
		if setMAC {
			if err := s.nl.LinkSetHardwareAddr(l, mac[:]); err != nil {
				return fmt.Errorf("set MAC address of %s: %w", name, err)
			}
		}
		if alias != nil {
			if err := s.nl.LinkSetAlias(l, *alias); err != nil {
				return fmt.Errorf("set alias of %s: %w", name, err)
			}
		}
		return nil
	})
}

// setPort makes a link a port of its bridge and sets all flags in one message.
func (s *space) setPort(it kstate.Port) error {
	return s.with(it.Link, func(l netlink.Link) error {
		br, err := s.nl.LinkByName(it.Bridge)
		if err != nil {
			return fmt.Errorf("find bridge %s: %w", it.Bridge, translate(err))
		}
		if l.Attrs().MasterIndex != br.Attrs().Index {
			if err := s.nl.LinkSetMaster(l, br); err != nil {
				return fmt.Errorf("join bridge %s: %w", it.Bridge, err)
			}
		}
		msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
		msg.Index = int32(l.Attrs().Index)
		flags := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
		for _, f := range []struct {
			attr int
			on   bool
		}{
			{nl.IFLA_BRPORT_LEARNING, it.Learning}, {nl.IFLA_BRPORT_UNICAST_FLOOD, it.Flood},
			{nl.IFLA_BRPORT_MCAST_FLOOD, it.McastFlood}, {nl.IFLA_BRPORT_BCAST_FLOOD, it.BcastFlood},
			{nl.IFLA_BRPORT_LOCKED, it.Locked}, {nl.IFLA_BRPORT_NEIGH_SUPPRESS, it.NeighSuppress},
		} {
			value := byte(0)
			if f.on {
				value = 1
			}
			flags.AddRtAttr(f.attr, []byte{value})
		}
		_, err = s.request(unix.RTM_SETLINK, unix.NLM_F_ACK, msg, flags).Execute(unix.NETLINK_ROUTE, 0)
		if err != nil {
			return fmt.Errorf("set port flags: %w", err)
		}
		return nil
	})
}
