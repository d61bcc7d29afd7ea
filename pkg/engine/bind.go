package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// bind is the engine's conn.Bind: UDP sockets with segmentation offload, like wireguard-go's own (conn.StdNetBind), but
// without its copies. That one appends the packets of a batch to one buffer to send them, and receives into one buffer
// to copy them apart; here the kernel gathers them from, and scatters them to, the buffers they are in (see sender and
// receiver). Neither does it make an endpoint for every packet.
type bind struct {
	mu      sync.Mutex
	v4, v6  *socket
	senders sync.Pool // *sender
}

// socket is one UDP socket. The counters and switches belong to no single goroutine.
type socket struct {
	conn  *net.UDPConn
	raw   syscall.RawConn
	is6   bool
	noGSO atomic.Bool
}

func newBind() *bind {
	b := &bind{}
	b.senders.New = func() any { return new(sender) }
	return b
}

// socketBuffer is the size of the sockets' buffers in bytes, as wireguard-go has it: 40 ms at 1.4 Gbit/s.
const socketBuffer = 7 << 20

// openTries is how often a pair of free ports is looked for.
const openTries = 100

// Open implements conn.Bind: one socket per IP version, on one port. A version that the kernel lacks is left out.
func (b *bind) Open(port uint16) (fns []conn.ReceiveFunc, actual uint16, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.v4 != nil || b.v6 != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	for try := 0; ; try++ {
		b.v4, actual, err = openSocket(false, port)
		if err == nil {
			b.v6, actual, err = openSocket(true, actual)
		}
		if err == nil {
			break
		}
		b.closeLocked()
		if port != 0 || !errors.Is(err, syscall.EADDRINUSE) || try == openTries {
			return nil, 0, err
		}
	}
	for _, s := range []*socket{b.v4, b.v6} {
		if s != nil {
			r := &receiver{socket: s}
			fns = append(fns, r.receive)
		}
	}
	if len(fns) == 0 {
		return nil, 0, syscall.EAFNOSUPPORT
	}
	return fns, actual, nil
}

// openSocket returns nil and the port when the kernel does not know this version of IP.
func openSocket(is6 bool, port uint16) (*socket, uint16, error) {
	network := "udp4"
	if is6 {
		network = "udp6"
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) { set = setOptions(int(fd), is6) })
		return errors.Join(err, set)
	}}
	c, err := lc.ListenPacket(context.Background(), network, ":"+strconv.Itoa(int(port)))
	if errors.Is(err, syscall.EAFNOSUPPORT) {
		return nil, port, nil
	}
	if err != nil {
		return nil, 0, err
	}
	s := &socket{conn: c.(*net.UDPConn), is6: is6}
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		return nil, 0, errors.Join(err, c.Close())
	}
	return s, s.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port(), nil
}

func setOptions(fd int, is6 bool) error {
	for _, o := range []struct{ soft, force int }{{unix.SO_RCVBUF, unix.SO_RCVBUFFORCE}, {unix.SO_SNDBUF, unix.SO_SNDBUFFORCE}} {
		// FORCE, which passes the limit net.core.?mem_max, needs CAP_NET_ADMIN.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.force, socketBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.soft, socketBuffer) // small buffers lose packets, no more
		}
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) // Linux 5.0
	if is6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fmt.Errorf("set IPV6_V6ONLY: %w", err)
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
}

// Close implements conn.Bind.
func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closeLocked()
}

func (b *bind) closeLocked() (err error) {
	for _, s := range []**socket{&b.v4, &b.v6} {
		if *s != nil {
			err = errors.Join(err, (*s).conn.Close())
			*s = nil
		}
	}
	return err
}

// SetMark implements conn.Bind.
func (b *bind) SetMark(mark uint32) (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range []*socket{b.v4, b.v6} {
		if s == nil {
			continue
		}
		var set error
		cerr := s.raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)) })
		err = errors.Join(err, cerr, set)
	}
	return err
}

// BatchSize implements conn.Bind.
func (b *bind) BatchSize() int { return batch }

// ParseEndpoint implements conn.Bind.
func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return &endpoint{addr: a}, nil
}

// endpoint is where a peer is, and how to answer: with the address and through the interface it was heard on. It does
// not change but for forgetting the latter, so many packets share one.
type endpoint struct {
	addr    netip.AddrPort
	pktinfo []byte // a whole control message, IP_PKTINFO or IPV6_PKTINFO; nil for none
	cleared atomic.Bool
}

func (e *endpoint) ClearSrc()           { e.cleared.Store(true) }
func (e *endpoint) DstToString() string { return e.addr.String() }
func (e *endpoint) DstIP() netip.Addr   { return e.addr.Addr() }
func (e *endpoint) SrcToString() string { return e.SrcIP().String() }

// DstToBytes implements conn.Endpoint.
func (e *endpoint) DstToBytes() []byte {
	b, _ := e.addr.MarshalBinary() // never fails
	return b
}

// SrcIP implements conn.Endpoint.
func (e *endpoint) SrcIP() netip.Addr {
	p := e.source()
	var a netip.Addr
	switch at := unix.CmsgLen(0); len(p) {
	case unix.CmsgSpace(unix.SizeofInet4Pktinfo): // index, spec_dst, addr (ip(7))
		a, _ = netip.AddrFromSlice(p[at+4 : at+8])
	case unix.CmsgSpace(unix.SizeofInet6Pktinfo): // addr, index (RFC 3542)
		a, _ = netip.AddrFromSlice(p[at : at+16])
	}
	return a
}

// source is the control message that sends as the peer was heard.
func (e *endpoint) source() []byte {
	if e.cleared.Load() {
		return nil
	}
	return e.pktinfo
}
