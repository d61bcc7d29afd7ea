package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many datagrams one system call moves at most.
	batchSize = 32
	// maxRequest in bytes: a question and its OPT record need 300; what is longer is answered as malformed.
	maxRequest = 1536
	// maxAnswer in bytes holds whatever fits maxUDP.
	maxAnswer = 2048
)

// mmsghdr is struct mmsghdr of recvmmsg(2): its length is that of unsigned long's alignment.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [unsafe.Sizeof(uintptr(0)) - 4]byte
}

// batch is the memory of one recvmmsg and one sendmmsg. Sockets that nobody asks hold none.
type batch struct {
	in, out     [batchSize]mmsghdr
	inVec       [batchSize]unix.Iovec
	outVec      [batchSize]unix.Iovec
	from        [batchSize]unix.RawSockaddrInet6 // large enough for both families
	request     [batchSize][maxRequest]byte
	answer      [batchSize][maxAnswer]byte
	received    int
	outstanding int
}

var batches = sync.Pool{New: func() any {
	b := new(batch)
	for i := range batchSize {
		b.inVec[i].Base = &b.request[i][0]
		b.inVec[i].SetLen(maxRequest)
		b.in[i].hdr.Iov = &b.inVec[i]
		b.in[i].hdr.SetIovlen(1)
		b.in[i].hdr.Name = (*byte)(unsafe.Pointer(&b.from[i]))
		b.out[i].hdr.Iov = &b.outVec[i]
		b.out[i].hdr.SetIovlen(1)
	}
	return b
}}

// serveUDP answers one socket until it is closed.
func (s *Server) serveUDP(ctx context.Context, l *Listen, pc net.PacketConn) error {
	udp, ok := pc.(*net.UDPConn)
	if !ok {
		return fmt.Errorf("%T is not a UDP socket", pc)
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return err
	}
	w := s.newWorker(l)
	defer w.close()
	u := udpServer{w: w, raw: raw, pc: udp}
	defer u.asking.Wait()
	for {
		b, err := u.receive()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("receive: %w", err)
		}
		u.handle(ctx, b)
		u.send(b)
		batches.Put(b)
	}
}

type udpServer struct {
	w      *worker
	raw    syscall.RawConn
	pc     *net.UDPConn
	asking sync.WaitGroup
}

// receive waits for requests and takes those that are there.
func (u *udpServer) receive() (*batch, error) {
	var b *batch
	var errno syscall.Errno
	err := u.raw.Read(func(fd uintptr) bool {
		b = batches.Get().(*batch)
		for i := range b.in {
			b.in[i].hdr.Namelen = unix.SizeofSockaddrInet6
		}
		for {
			n, _, e := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.in[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
			errno, b.received = e, int(n)
			if e != unix.EINTR {
				break
			}
		}
		if errno == unix.EAGAIN {
			batches.Put(b)
			b = nil
			return false
		}
		return true
	})
	switch {
	case err != nil:
		return nil, err
	case errno == unix.ECONNREFUSED, errno == unix.EHOSTUNREACH, errno == unix.ENETUNREACH:
		b.received = 0 // an asker that is gone is no reason to stop
	case errno != 0:
		batches.Put(b)
		return nil, errno
	}
	return b, nil
}

// handle answers what was received, and leaves what must be asked of others to goroutines.
func (u *udpServer) handle(ctx context.Context, b *batch) {
	debug := u.w.s.log.Enabled(ctx, slog.LevelDebug)
	b.outstanding = 0
	for i := range b.received {
		req := b.request[i][:min(b.in[i].n, maxRequest)]
		out, ask := u.w.answer(b.answer[i][:0], req, true)
		if debug {
			u.w.logQuery(ctx, addrOf(&b.from[i]), out, ask)
		}
		if ask != nil {
			u.ask(ctx, ask, req, addrOf(&b.from[i]), len(out) > 0)
		}
		if len(out) == 0 {
			continue
		}
		n := b.outstanding
		b.outVec[n].Base = &out[0]
		b.outVec[n].SetLen(len(out))
		b.out[n].hdr.Name, b.out[n].hdr.Namelen = b.in[i].hdr.Name, b.in[i].hdr.Namelen
		b.outstanding++
	}
}

// send sends the answers; one that cannot be sent is dropped alone.
func (u *udpServer) send(b *batch) {
	for sent := 0; sent < b.outstanding; {
		var n uintptr
		var errno syscall.Errno
		err := u.raw.Write(func(fd uintptr) bool {
			n, _, errno = unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.out[sent])), uintptr(b.outstanding-sent), unix.MSG_DONTWAIT, 0, 0)
			return errno != unix.EAGAIN
		})
		switch {
		case err != nil:
			return
		case errno == unix.EINTR:
		case errno != 0:
			u.w.n.dropped.Add(1)
			sent++
		default:
			sent += int(n)
		}
	}
}

// ask answers one request from the upstreams; a quiet one is only for the cache.
func (u *udpServer) ask(ctx context.Context, r *route, req []byte, from netip.AddrPort, quiet bool) {
	fwd := u.w.s.fwd
	if !fwd.admit() {
		if out := fwd.overload(req, true); out != nil && !quiet {
			u.write(out, from)
		}
		return
	}
	req = append([]byte(nil), req...)
	u.asking.Go(func() {
		defer fwd.done()
		u.w.s.resolve(ctx, u.w.l, r, req, from.Addr(), true, func(out []byte) {
			if !quiet {
				u.write(out, from)
			}
		})
	})
}

func (u *udpServer) write(out []byte, to netip.AddrPort) {
	if _, err := u.pc.WriteToUDPAddrPort(out, to); err != nil {
		u.w.n.dropped.Add(1)
	}
}

// addrOf reads a socket address; its family is the first field of both kinds.
func addrOf(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := func(p *uint16) uint16 { b := (*[2]byte)(unsafe.Pointer(p)); return uint16(b[0])<<8 | uint16(b[1]) }
	if sa.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port(&v4.Port))
	}
	a := netip.AddrFrom16(sa.Addr)
	if sa.Scope_id != 0 {
		a = a.WithZone(fmt.Sprint(sa.Scope_id))
	}
	return netip.AddrPortFrom(a, port(&sa.Port))
}

// logQuery is the query log.
func (w *worker) logQuery(ctx context.Context, from netip.AddrPort, out []byte, ask *route) {
	q := &w.q
	attrs := []slog.Attr{slog.String("network", w.l.Network), slog.String("from", from.String())}
	if q.end > headerLen {
		attrs = append(attrs, slog.String("name", text(q.name)), slog.String("type", typeName(q.qtype)))
	}
	switch {
	case ask != nil:
		attrs = append(attrs, slog.String("asked", ask.name))
	case len(out) >= headerLen:
		attrs = append(attrs, slog.String("rcode", rcodeName(int(out[3]&0xf))), slog.Int("answers", int(be.Uint16(out[6:]))), slog.Int("bytes", len(out)))
	default:
		attrs = append(attrs, slog.String("rcode", "none"))
	}
	w.s.log.LogAttrs(ctx, slog.LevelDebug, "query", attrs...)
}
