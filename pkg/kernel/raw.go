package kernel

import (
	"context"
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/pkg/overlay"
)

// What follows reads links by itself: one dump of RTM_GETLINK holds everything that is asked of a link, bridge port
// flags included, for which the netlink package would need a dump for each port.

// rawLink is one link as the kernel describes it.
type rawLink struct {
	index, master, peer int // peer: the far end's index of a veth
	name, kind, alias   string
	mac                 overlay.MAC
	mtu                 int
	up                  bool
	nsid                int // namespace of the far end, or of a tunnel's sockets; noNSID when it is this one
	bridgePort          bool
	port                portFlags
	vxlan               vxlanData
	vnetHdr             bool // of a TUN
}

// noNSID stands for "this namespace": the kernel leaves the attribute out then.
const noNSID = -1

type portFlags struct{ learning, flood, mcast, bcast, locked, suppress bool }

type vxlanData struct {
	vni   overlay.VNI
	local netip.Addr
	port  uint16
}

// request prepares a message for the space's own socket.
func (s *space) request(kind, flags int, parts ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: s.raw}
	for _, p := range parts {
		req.AddData(p)
	}
	return req
}

// list runs one dump, repeated when interrupted, and returns the bodies of the answers.
func (s *space) list(ctx context.Context, kind int, parts ...nl.NetlinkRequestData) ([][]byte, error) {
	return dump(ctx, func() ([][]byte, error) {
		return s.request(kind, unix.NLM_F_DUMP, parts...).Execute(unix.NETLINK_ROUTE, 0)
	})
}

// skipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h.
const skipStats = 1 << 3

// links lists all links of the namespace.
func (s *space) links(ctx context.Context) ([]rawLink, error) {
	msgs, err := s.list(ctx, unix.RTM_GETLINK, nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
	if err != nil {
		return nil, err
	}
	out := make([]rawLink, 0, len(msgs))
	for _, m := range msgs {
		l, err := parseLink(m)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// parseLink reads the body of an RTM_NEWLINK message (rtnetlink(7)).
func parseLink(m []byte) (rawLink, error) {
	l := rawLink{nsid: noNSID}
	if len(m) < unix.SizeofIfInfomsg {
		return l, unix.EBADMSG
	}
	msg := nl.DeserializeIfInfomsg(m)
	l.index, l.up = int(msg.Index), msg.Flags&unix.IFF_UP != 0
	err := eachAttr(m[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = text(v)
		case unix.IFLA_IFALIAS:
			l.alias = text(v)
		case unix.IFLA_ADDRESS:
			if len(v) == len(l.mac) {
				copy(l.mac[:], v)
			}
		case unix.IFLA_MTU:
			l.mtu = num(v)
		case unix.IFLA_LINK:
			l.peer = num(v)
		case unix.IFLA_MASTER:
			l.master = num(v)
		case unix.IFLA_LINK_NETNSID:
			l.nsid = num(v)
		case unix.IFLA_LINKINFO:
			l.parseInfo(v)
		}
	})
	return l, err
}

func (l *rawLink) parseInfo(b []byte) {
	var data []byte
	_ = eachAttr(b, func(kind uint16, v []byte) {
		switch kind {
		case nl.IFLA_INFO_KIND:
			l.kind = text(v)
		case nl.IFLA_INFO_DATA:
			data = v
		case nl.IFLA_INFO_SLAVE_KIND:
			l.bridgePort = text(v) == "bridge"
		case nl.IFLA_INFO_SLAVE_DATA:
			l.parsePort(v)
		}
	})
	switch l.kind {
	case "vxlan":
		l.parseVXLAN(data)
	case "tun":
		l.parseTUN(data)
	}
}

func (l *rawLink) parsePort(b []byte) {
	flags := map[uint16]*bool{
		nl.IFLA_BRPORT_LEARNING: &l.port.learning, nl.IFLA_BRPORT_UNICAST_FLOOD: &l.port.flood,
		nl.IFLA_BRPORT_MCAST_FLOOD: &l.port.mcast, nl.IFLA_BRPORT_BCAST_FLOOD: &l.port.bcast,
		nl.IFLA_BRPORT_LOCKED: &l.port.locked, nl.IFLA_BRPORT_NEIGH_SUPPRESS: &l.port.suppress,
	}
	_ = eachAttr(b, func(kind uint16, v []byte) {
		if f := flags[kind]; f != nil && len(v) > 0 {
			*f = v[0] != 0
		}
	})
}

// tunVNetHdr is IFLA_TUN_VNET_HDR of linux/if_link.h.
const tunVNetHdr = 5

func (l *rawLink) parseTUN(b []byte) {
	_ = eachAttr(b, func(kind uint16, v []byte) {
		if kind == tunVNetHdr && len(v) > 0 {
			l.vnetHdr = v[0] != 0
		}
	})
}

func (l *rawLink) parseVXLAN(b []byte) {
	_ = eachAttr(b, func(kind uint16, v []byte) {
		switch {
		case kind == nl.IFLA_VXLAN_ID:
			l.vxlan.vni = overlay.VNI(num(v))
		case kind == nl.IFLA_VXLAN_LOCAL || kind == nl.IFLA_VXLAN_LOCAL6:
			l.vxlan.local, _ = netip.AddrFromSlice(v)
		case kind == nl.IFLA_VXLAN_PORT && len(v) == 2:
			l.vxlan.port = binary.BigEndian.Uint16(v)
		}
	})
}

// eachAttr calls f for the attributes in b; it stops with an error at the first that does not fit.
func eachAttr(b []byte, f func(kind uint16, value []byte)) error {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return unix.EBADMSG
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:n])
		b = b[min(len(b), (n+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
	}
	return nil
}

func num(v []byte) int {
	if len(v) < 4 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(v)))
}

func text(v []byte) string {
	for i, c := range v {
		if c == 0 {
			return string(v[:i])
		}
	}
	return string(v)
}
