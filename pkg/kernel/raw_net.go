package kernel

import (
	"context"
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/pkg/overlay"
)

// rawAddr is one address of a link.
type rawAddr struct {
	index  int
	prefix netip.Prefix
}

func (s *space) addrs(ctx context.Context) ([]rawAddr, error) {
	msgs, err := s.list(ctx, unix.RTM_GETADDR, nl.NewIfAddrmsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, err
	}
	var out []rawAddr
	for _, m := range msgs {
		if len(m) < unix.SizeofIfAddrmsg {
			return nil, unix.EBADMSG
		}
		var local, addr netip.Addr
		err := eachAttr(m[unix.SizeofIfAddrmsg:], func(kind uint16, v []byte) {
			switch kind {
			case unix.IFA_LOCAL:
				local, _ = netip.AddrFromSlice(v)
			case unix.IFA_ADDRESS:
				addr, _ = netip.AddrFromSlice(v)
			}
		})
		if err != nil {
			return nil, err
		}
		if !local.IsValid() {
			local = addr // IPv6 has no IFA_LOCAL without a peer
		}
		out = append(out, rawAddr{num(m[4:]), netip.PrefixFrom(local, int(m[1]))})
	}
	return out, nil
}

// rawRoute is one route of the main table.
type rawRoute struct {
	index    int
	dst      netip.Prefix
	via, src netip.Addr
	protocol byte
	kind     byte
	metric   int
}

func (s *space) routes(ctx context.Context, family byte) ([]rawRoute, error) {
	msgs, err := s.list(ctx, unix.RTM_GETROUTE, &nl.RtMsg{RtMsg: unix.RtMsg{Family: family}})
	if err != nil {
		return nil, err
	}
	var out []rawRoute
	for _, m := range msgs {
		if len(m) < unix.SizeofRtMsg {
			return nil, unix.EBADMSG
		}
		msg := nl.DeserializeRtMsg(m)
		if msg.Family != family || msg.Table != unix.RT_TABLE_MAIN || msg.Flags&unix.RTM_F_CLONED != 0 {
			continue
		}
		r, err := parseRoute(msg, m[unix.SizeofRtMsg:])
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func parseRoute(msg *nl.RtMsg, attrs []byte) (rawRoute, error) {
	r := rawRoute{protocol: msg.Protocol, kind: msg.Type}
	dst := netip.IPv4Unspecified()
	if msg.Family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	err := eachAttr(attrs, func(kind uint16, v []byte) {
		switch kind {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(v)
		case unix.RTA_GATEWAY:
			r.via, _ = netip.AddrFromSlice(v)
		case unix.RTA_PREFSRC:
			r.src, _ = netip.AddrFromSlice(v)
		case unix.RTA_OIF:
			r.index = num(v)
		case unix.RTA_PRIORITY:
			r.metric = num(v)
		}
	})
	r.dst = netip.PrefixFrom(dst, int(msg.Dst_len))
	return r, err
}

// rawNeigh is a neighbour or, in a dump of AF_BRIDGE, a forwarding entry.
type rawNeigh struct {
	index int
	state uint16
	flags uint8
	dst   netip.Addr
	mac   overlay.MAC
	// master and vlan are those of a forwarding entry, 0 for none.
	master, vlan int
}

// ndmsg is struct ndmsg of linux/neighbour.h.
type ndmsg struct{ family byte }

func (ndmsg) Len() int            { return 12 }
func (n ndmsg) Serialize() []byte { return append([]byte{n.family}, make([]byte, 11)...) }

func (s *space) neighs(ctx context.Context, family byte) ([]rawNeigh, error) {
	msgs, err := s.list(ctx, unix.RTM_GETNEIGH, ndmsg{family})
	if err != nil {
		return nil, err
	}
	var out []rawNeigh
	for _, m := range msgs {
		if len(m) < 12 {
			return nil, unix.EBADMSG
		}
		n := rawNeigh{index: num(m[4:]), state: binary.NativeEndian.Uint16(m[8:]), flags: m[10]}
		err := eachAttr(m[12:], func(kind uint16, v []byte) {
			switch kind {
			case unix.NDA_DST:
				n.dst, _ = netip.AddrFromSlice(v)
			case unix.NDA_LLADDR:
				copy(n.mac[:], v)
			case unix.NDA_MASTER:
				n.master = num(v)
			case unix.NDA_VLAN:
				if len(v) >= 2 {
					n.vlan = int(binary.NativeEndian.Uint16(v))
				}
			}
		})
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// nsid is the identifier that this namespace knows another by, noNSID when it has none yet.
func (s *space) nsid(other *space) (int, error) {
	req := s.request(unix.RTM_GETNSID, 0, &nl.RtGenMsg{RtGenmsg: unix.RtGenmsg{Family: unix.AF_UNSPEC}},
		nl.NewRtAttr(unix.NETNSA_FD, nl.Uint32Attr(uint32(other.file.Fd()))))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNSID)
	if err != nil {
		return noNSID, translate(err)
	}
	id := noNSID
	for _, m := range msgs {
		if len(m) < unix.SizeofRtGenmsg {
			continue
		}
		// struct rtgenmsg is one byte, padded to the alignment of the attributes.
		_ = eachAttr(m[min(len(m), unix.NLA_ALIGNTO):], func(kind uint16, v []byte) {
			if kind == unix.NETNSA_NSID {
				id = num(v)
			}
		})
	}
	return id, nil
}
