package dns

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// upstreamUDP is the buffer for replies in bytes: some servers exceed what was offered.
	upstreamUDP = 4096
	// benched is how long a server that did not answer is asked last, doubling up to benchedMax.
	benched    = 2 * time.Second
	benchedMax = 30 * time.Second
	// explore is how often, of so many questions, another server than the fastest is asked first.
	explore = 32
	// maxPeers bounds what is remembered about servers.
	maxPeers = 256
)

// peer is what is known of one server.
type peer struct {
	rtt   time.Duration // smoothed; 0: never answered
	until time.Time     // asked last until then
	fails int
}

// order is the servers in the order they are asked: the fastest that answer first, those that did not lately last. Once
// in a while another one begins, so that speeds are known anew.
func (f *forwarder) order(servers []netip.AddrPort) []netip.AddrPort {
	out := slices.Clone(servers)
	if len(out) < 2 {
		return out
	}
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	rank := func(s netip.AddrPort) (bench int, rtt time.Duration) {
		p := f.peers[s]
		if p == nil {
			return 0, 0
		}
		if p.until.After(now) {
			bench = 1
		}
		return bench, p.rtt
	}
	slices.SortStableFunc(out, func(x, y netip.AddrPort) int {
		bx, rx := rank(x)
		by, ry := rank(y)
		return cmp.Or(cmp.Compare(bx, by), cmp.Compare(rx, ry))
	})
	if i := 1 + rand.IntN(len(out)-1); rand.IntN(explore) == 0 {
		bench, _ := rank(out[i])
		if _, known := rank(out[0]); bench == 0 && known > 0 {
			out[0], out[i] = out[i], out[0]
		}
	}
	return out
}

// patience is how long a server is waited for before the next is asked too.
func (f *forwarder) patience(s netip.AddrPort) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.peers[s]
	if p == nil || p.rtt == 0 {
		return 400 * time.Millisecond
	}
	return min(max(3*p.rtt, 100*time.Millisecond), 800*time.Millisecond)
}

func (f *forwarder) learn(s netip.AddrPort, took time.Duration, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.peers[s]
	if p == nil {
		if len(f.peers) >= maxPeers {
			clear(f.peers)
		}
		p = &peer{}
		f.peers[s] = p
	}
	if !ok {
		p.fails++
		p.until = time.Now().Add(min(benched<<min(p.fails-1, 8), benchedMax))
		return
	}
	p.fails, p.until = 0, time.Time{}
	if p.rtt == 0 {
		p.rtt = took
	}
	p.rtt += (took - p.rtt) / 8
}

// reply of one server.
type upstreamReply struct {
	server netip.AddrPort
	entry  *cacheEntry // nil: the next one should be asked
}

// exchange asks the servers of a route, the next one when one fails or is slow, and returns the first good answer, or
// nil. NXDOMAIN is an answer; SERVFAIL, REFUSED and the like are not.
func (f *forwarder) exchange(ctx context.Context, r *route, q *question) *cacheEntry {
	order := f.order(r.servers())
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	replies := make(chan upstreamReply, len(order))
	pending, next := 0, 0
	var slow <-chan time.Time
	launch := func() {
		s := order[next]
		next++
		pending++
		slow = time.After(f.patience(s))
		wg.Go(func() { replies <- upstreamReply{s, f.ask(ctx, s, q)} })
	}
	for {
		if pending == 0 {
			if next == len(order) {
				return nil
			}
			launch()
		}
		select {
		case rep := <-replies:
			pending--
			if rep.entry != nil {
				return rep.entry
			}
		case <-slow:
			slow = nil
			if next < len(order) {
				launch()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// ask asks one server, over TCP again when its answer was cut, and without EDNS when it does not know that.
func (f *forwarder) ask(ctx context.Context, s netip.AddrPort, q *question) *cacheEntry {
	ctx, cancel := context.WithTimeout(ctx, f.clock.Try)
	defer cancel()
	for _, edns := range []bool{true, false} {
		start := time.Now()
		f.exchanges.Add(1)
		e, rcode, err := f.try(ctx, s, q, edns)
		if err != nil {
			if !errors.Is(ctx.Err(), context.Canceled) { // cancelled: another server was faster
				f.failures.Add(1)
				f.learn(s, 0, false)
				f.log.Debug("upstream name server does not answer", "server", s.String(), "name", text(q.name), "err", err)
			}
			return nil
		}
		f.learn(s, time.Since(start), true)
		switch rcode {
		case rcodeSuccess, rcodeNXDomain:
			return e
		case rcodeFormErr, rcodeNotImp:
			if edns {
				continue // RFC 6891 section 7
			}
		}
		f.failures.Add(1)
		f.log.Debug("upstream name server fails", "server", s.String(), "name", text(q.name), "rcode", rcodeName(rcode))
		return nil
	}
	return nil
}

func (f *forwarder) try(ctx context.Context, s netip.AddrPort, q *question, edns bool) (*cacheEntry, int, error) {
	msg, err := f.overUDP(ctx, s, q, edns)
	if err != nil {
		return nil, 0, err
	}
	tc := be.Uint16(msg[2:])&flagTC != 0
	if tc {
		f.truncated.Add(1)
		if full, err := f.overTCP(ctx, s, q, edns); err == nil {
			msg, tc = full, false
		}
	}
	e, rcode, ok := digest(msg, q)
	if !ok && tc { // some servers cut inside a record
		e, rcode, ok = digest(headOf(msg, q), q)
	}
	if !ok {
		return nil, 0, errors.New("its answer cannot be read")
	}
	if tc {
		e.ttl = 0 // a part is passed on, but not kept
	}
	return e, rcode, nil
}

// headOf is a message without its records.
func headOf(msg []byte, q *question) []byte {
	out := append([]byte(nil), msg[:headerLen+len(q.name)+4]...)
	for i := 6; i < headerLen; i++ {
		out[i] = 0
	}
	return out
}

// request packs what a server is asked, with a random id.
func (q *question) request(edns bool) []byte {
	b := make([]byte, 0, headerLen+len(q.name)+4+optLen)
	b = be.AppendUint16(b, uint16(rand.Uint32()))
	b = be.AppendUint16(b, flagRD|q.flags&flagCD)
	b = append(b, 0, 1, 0, 0, 0, 0, 0, 0)
	b = be.AppendUint16(be.AppendUint16(append(b, q.name...), q.qtype), q.qclass)
	if edns {
		b = appendOPT(b, q.do, 0)
		b[11] = 1
	}
	return b
}

// answers reports whether msg is a reply to req, and not something that only came back to the same port.
func answers(msg, req []byte, q *question) bool {
	end := headerLen + len(q.name) + 4
	return len(msg) >= end && msg[0] == req[0] && msg[1] == req[1] && msg[2]&0x80 != 0 && be.Uint16(msg[4:]) == 1 &&
		bytes.EqualFold(msg[headerLen:end-4], req[headerLen:end-4]) && bytes.Equal(msg[end-4:end], req[end-4:end])
}

// overUDP asks from a socket of its own, whose port the kernel chooses at random; the socket is connected, so only that
// server's datagrams reach it. Nobody else's answer ends the wait.
func (f *forwarder) overUDP(ctx context.Context, s netip.AddrPort, q *question, edns bool) ([]byte, error) {
	c, stop, err := dial(ctx, "udp", s)
	if err != nil {
		return nil, err
	}
	defer stop()
	req := q.request(edns)
	buf := make([]byte, upstreamUDP)
	for _, again := range []bool{true, false} {
		if _, err := c.Write(req); err != nil {
			return nil, err
		}
		deadline, _ := ctx.Deadline()
		if resend := time.Now().Add(f.clock.Resend); again && resend.Before(deadline) {
			deadline = resend
		}
		if err := c.SetReadDeadline(deadline); err != nil {
			return nil, err
		}
		for {
			n, err := c.Read(buf)
			if err != nil {
				if ne := net.Error(nil); again && errors.As(err, &ne) && ne.Timeout() && ctx.Err() == nil {
					break
				}
				return nil, err
			}
			if answers(buf[:n], req, q) {
				return buf[:n], nil
			}
		}
	}
	return nil, context.DeadlineExceeded
}

func (f *forwarder) overTCP(ctx context.Context, s netip.AddrPort, q *question, edns bool) ([]byte, error) {
	c, stop, err := dial(ctx, "tcp", s)
	if err != nil {
		return nil, err
	}
	defer stop()
	req := q.request(edns)
	if _, err := c.Write(append(be.AppendUint16(nil, uint16(len(req))), req...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, be.Uint16(length[:]))
	if _, err := io.ReadFull(c, msg); err != nil {
		return nil, err
	}
	if !answers(msg, req, q) {
		return nil, errors.New("it answers another question")
	}
	return msg, nil
}

// dial connects to a server; the connection is closed when ctx ends or by stop.
func dial(ctx context.Context, network string, s netip.AddrPort) (net.Conn, func(), error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, s.String())
	if err != nil {
		return nil, nil, err
	}
	off := context.AfterFunc(ctx, func() { _ = c.Close() })
	if t, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(t); err != nil {
			off()
			return nil, nil, errors.Join(err, c.Close())
		}
	}
	return c, func() { off(); _ = c.Close() }, nil
}
