package engine

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

const (
	maxSegments = 64             // UDP_MAX_SEGMENTS before Linux 6.9
	maxUDP4     = 65535 - 20 - 8 // payload of one UDP packet, before it is cut
	maxUDP6     = 65535 - 8      // the IPv6 header is not counted
	controlLen  = 128            // room for the control messages we know
	maxMessages = 16             // messages in one call
	sockaddrLen = unix.SizeofSockaddrInet6
)

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// sender is what one Send needs.
type sender struct {
	iov     [batch]unix.Iovec
	msgs    [maxMessages]mmsghdr
	control [maxMessages][controlLen]byte
	name    [sockaddrLen]byte
	nameLen uint32
	// of the calls that the runtime makes
	from, to int
	errno    unix.Errno
}

// Send implements conn.Bind. Packets of one size that follow each other, the last of which may be smaller, go as one
// message, which the kernel or the network card cuts (UDP_SEGMENT, udp(7)).
func (b *bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	e, ok := ep.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	b.mu.Lock()
	s := b.v4
	if e.addr.Addr().Is6() && !e.addr.Addr().Is4In6() {
		s = b.v6
	}
	b.mu.Unlock()
	if s == nil {
		return syscall.EAFNOSUPPORT
	}
	w := b.senders.Get().(*sender)
	defer b.senders.Put(w)
	w.setName(e, s.is6)
	src := e.source()
	var err error
	for len(bufs) > 0 && err == nil {
		n := w.prepare(bufs[:min(len(bufs), batch)], src, s, !s.noGSO.Load())
		err = w.flush(s)
		if gso := err == unix.EIO; (gso || err == unix.EINVAL || err == unix.EMSGSIZE) && !s.noGSO.Load() {
			// EIO: the device has no checksum offload, without which there is no UDP_SEGMENT. The others: a segment is
			// larger than the path's MTU; one by one they can be sent in fragments.
			s.noGSO.CompareAndSwap(false, gso)
			err = w.oneByOne(bufs[:n], src, s)
		}
		bufs = bufs[n:]
	}
	clear(w.iov[:])
	if err != nil {
		return os.NewSyscallError("sendmmsg", err)
	}
	return nil
}

func (w *sender) oneByOne(bufs [][]byte, src []byte, s *socket) error {
	for len(bufs) > 0 {
		n := w.prepare(bufs, src, s, false)
		if err := w.flush(s); err != nil {
			return err
		}
		bufs = bufs[n:]
	}
	return nil
}

func (w *sender) setName(e *endpoint, is6 bool) {
	clear(w.name[:])
	p := e.addr.Port()
	w.name[2], w.name[3] = byte(p>>8), byte(p)
	if is6 {
		*(*uint16)(unsafe.Pointer(&w.name[0])) = unix.AF_INET6
		a := e.addr.Addr().As16()
		copy(w.name[8:], a[:])
		*(*uint32)(unsafe.Pointer(&w.name[24])) = zoneIndex(e.addr.Addr().Zone())
		w.nameLen = unix.SizeofSockaddrInet6
		return
	}
	*(*uint16)(unsafe.Pointer(&w.name[0])) = unix.AF_INET
	a := e.addr.Addr().Unmap().As4()
	copy(w.name[4:], a[:])
	w.nameLen = unix.SizeofSockaddrInet4
}

// prepare makes messages of the first n packets.
func (w *sender) prepare(bufs [][]byte, src []byte, s *socket, gso bool) (n int) {
	limit, segments := maxUDP4, maxSegments
	if s.is6 {
		limit = maxUDP6
	}
	if !gso {
		segments = 1
	}
	w.from, w.to = 0, 0
	for n < len(bufs) && w.to < maxMessages {
		size, total, first := len(bufs[n]), 0, n
		for n < len(bufs) && n-first < segments && len(bufs[n]) <= size && total+len(bufs[n]) <= limit {
			w.iov[n] = iovec(bufs[n])
			total += len(bufs[n])
			n++
			if len(bufs[n-1]) < size {
				break // a smaller one can only be the last
			}
		}
		if n == first {
			n++ // too large for UDP; wireguard-go never makes one
			continue
		}
		w.message(w.iov[first:n], size, src)
	}
	return n
}

// message appends one message.
func (w *sender) message(iov []unix.Iovec, size int, src []byte) {
	m := &w.msgs[w.to].hdr
	c := w.control[w.to][:]
	w.to++
	*m = unix.Msghdr{Name: &w.name[0], Namelen: w.nameLen, Iov: &iov[0]}
	m.SetIovlen(len(iov))
	l := copy(c, src)
	if len(iov) > 1 {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c[l]))
		h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		h.SetLen(unix.CmsgLen(2))
		*(*uint16)(unsafe.Pointer(&c[l+unix.CmsgLen(0)])) = uint16(size)
		l += unix.CmsgSpace(2)
	}
	if l > 0 {
		m.Control = &c[0]
		m.SetControllen(l)
	}
}

// flush sends the messages.
func (w *sender) flush(s *socket) error {
	for w.from < w.to {
		if err := s.raw.Write(w.attempt); err != nil {
			return err
		}
		if w.errno != 0 {
			return w.errno
		}
	}
	return nil
}

// attempt is one system call; false waits until the socket can be written.
func (w *sender) attempt(fd uintptr) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&w.msgs[w.from])), uintptr(w.to-w.from),
		unix.MSG_DONTWAIT, 0, 0)
	w.errno = errno
	switch errno {
	case 0:
		w.from += int(n)
	case unix.EAGAIN:
		return false
	case unix.EINTR:
		w.errno = 0
	}
	return true
}
