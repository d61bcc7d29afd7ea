package dns

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits of TCP (RFC 7766). Clocks are wall time.
const (
	tcpConns = 512              // at once per listener; more wait in the backlog
	tcpIdle  = 10 * time.Second // RFC 7766 section 6.2.3: seconds
	tcpWrite = 5 * time.Second
	tcpAsks  = 32 // forwarded at once per connection: pipelining (section 6.2.1.1)
)

// serveTCP accepts connections until the socket is closed.
func (s *Server) serveTCP(ctx context.Context, l *Listen) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	slots := make(chan struct{}, tcpConns)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := l.Stream.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			<-slots
			if ne, ok := err.(interface{ Temporary() bool }); ok && ne.Temporary() { // too many open files, or the asker left
				sleep(ctx, 10*time.Millisecond)
				continue
			}
			return err
		}
		conns.Go(func() {
			defer func() { <-slots }()
			s.serveConn(ctx, l, c)
		})
	}
}

// serveConn answers the requests of one connection, those that are forwarded as they come back (section 6.2.1.1).
func (s *Server) serveConn(ctx context.Context, l *Listen, c net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // unblocks the reads
	w := s.newWorker(l)
	var asking sync.WaitGroup
	defer func() {
		asking.Wait()
		cancel()
		stop()
		w.close()
		_ = c.Close() // all that could be said was said
	}()
	from := addrPort(c.RemoteAddr())
	var mu sync.Mutex // one writer at a time
	write := func(out []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		be.PutUint16(out, uint16(len(out)-2))
		if err := c.SetWriteDeadline(time.Now().Add(tcpWrite)); err != nil {
			return false
		}
		_, err := c.Write(out)
		return err == nil
	}
	slots := make(chan struct{}, tcpAsks)
	var req, out []byte
	for {
		if err := c.SetReadDeadline(time.Now().Add(tcpIdle)); err != nil {
			return
		}
		var length [2]byte
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		n := int(be.Uint16(length[:]))
		if cap(req) < n {
			req = make([]byte, n)
		}
		req = req[:n]
		if _, err := io.ReadFull(c, req); err != nil {
			return
		}
		out = append(out[:0], 0, 0)
		body, ask := w.answer(out[2:], req, false)
		if s.log.Enabled(ctx, slog.LevelDebug) {
			w.logQuery(ctx, from, body, ask)
		}
		quiet := len(body) > 0
		if quiet {
			out = append(out[:2], body...)
			if !write(out) {
				return
			}
		}
		if ask == nil {
			if !quiet {
				return // not a request: who sends such is not worth a connection
			}
			continue
		}
		if !s.fwd.admit() {
			if quiet {
				continue
			}
			if body := s.fwd.overload(req, false); body == nil || !write(append([]byte{0, 0}, body...)) {
				return
			}
			continue
		}
		own := append([]byte(nil), req...)
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots; s.fwd.done() }()
			s.resolve(ctx, l, ask, own, from.Addr(), false, func(body []byte) {
				if !quiet {
					write(append([]byte{0, 0}, body...))
				}
			})
		})
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
