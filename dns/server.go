package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Config is what a Server needs.
type Config struct {
	Log *slog.Logger
	// Upstreams answer what is not ours; asked per query. Nil or empty: such names get SERVFAIL.
	Upstreams func() []netip.AddrPort
	// Consul is Consul's DNS server, asked for names below ConsulDomain; invalid means that they go to Upstreams.
	Consul netip.AddrPort
	// Follow, when not nil, brings the endpoints of a network into the view and returns when they are, or cannot be. It is
	// called when the host's listener is asked about a network that Input.Follows leaves out.
	Follow func(ctx context.Context, network string)
	// Clock is the forwarder's; the zero value means the usual times.
	Clock Clock
}

// ConsulDomain is the zone that is asked of Consul.
const ConsulDomain = "consul"

// Server answers on any number of listeners. Safe for concurrent use.
type Server struct {
	log  *slog.Logger
	view atomic.Pointer[View]
	fwd  *forwarder
	// follow is Config.Follow.
	follow func(context.Context, string)
	mu     sync.Mutex
	count  []*counters // one per socket
	past   Stats       // of sockets that are closed
}

// New returns a server with an empty view.
func New(cfg Config) *Server {
	s := &Server{log: cfg.Log, fwd: newForwarder(cfg), follow: cfg.Follow}
	if s.follow == nil {
		s.follow = func(context.Context, string) {}
	}
	s.view.Store(Build(Input{}))
	return s
}

// SetView swaps the view; queries see the old or the new one, never a mixture.
func (s *Server) SetView(v *View) { s.view.Store(v) }

// View is the view that is answered from.
func (s *Server) View() *View { return s.view.Load() }

// Listen is the sockets on which a network's endpoints ask, or the host's. Serve closes them.
type Listen struct {
	// Network is the name of the network whose names are answered; empty for the host's listener, which answers
	// <name>.<network>.<domain> of all networks.
	Network string
	// Forward says whether names that are not ours are asked of the upstreams; an internal network's are refused, and so
	// are the host listener's: it is itself asked by resolvers, and a loop must not be possible.
	Forward bool
	// Packets share the load; see Open.
	Packets []net.PacketConn
	Stream  net.Listener
}

// receiveBuffer of a UDP socket in bytes; the kernel counts about 800 for a question and doubles it.
const receiveBuffer = 1 << 20

// Open opens the sockets of a listener in the namespace of the calling thread: a TCP one, and UDP ones that share the
// address (SO_REUSEPORT, socket(7)), so that each core reads its own.
func Open(ctx context.Context, address string, udp int) (packets []net.PacketConn, stream net.Listener, err error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			// The usual 208 KiB hold some 270 questions; a burst of more is lost. Without the right to more than
			// net.core.rmem_max it stays as it is.
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
		})
		return errors.Join(cerr, err)
	}}
	for range max(udp, 1) {
		pc, err := lc.ListenPacket(ctx, "udp", address)
		if err != nil {
			return nil, nil, errors.Join(err, closeAll(packets, nil))
		}
		packets = append(packets, pc)
		if strings.HasSuffix(address, ":0") {
			address = pc.LocalAddr().String()
		}
	}
	var plain net.ListenConfig
	if stream, err = plain.Listen(ctx, "tcp", address); err != nil {
		return nil, nil, errors.Join(err, closeAll(packets, nil))
	}
	return packets, stream, nil
}

func closeAll(packets []net.PacketConn, stream net.Listener) error {
	var errs []error
	for _, pc := range packets {
		errs = append(errs, closed(pc.Close()))
	}
	if stream != nil {
		errs = append(errs, closed(stream.Close()))
	}
	return errors.Join(errs...)
}

// closed forgives the error of closing what is closed.
func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Serve answers until ctx ends, then closes the sockets and returns nil. When one of the sockets fails before that, it
// closes all and returns why.
func (s *Server) Serve(ctx context.Context, l Listen) error {
	l.Network = strings.ToLower(l.Network)
	g, ctx := errgroup.WithContext(ctx)
	for _, pc := range l.Packets {
		g.Go(func() error { return s.named(ctx, l, s.serveUDP(ctx, &l, pc)) })
	}
	if l.Stream != nil {
		g.Go(func() error { return s.named(ctx, l, s.serveTCP(ctx, &l)) })
	}
	stop := context.AfterFunc(ctx, func() { _ = closeAll(l.Packets, l.Stream) }) // unblocks the reads
	defer stop()
	err := g.Wait()
	return errors.Join(err, closeAll(l.Packets, l.Stream))
}

func (s *Server) named(ctx context.Context, l Listen, err error) error {
	if err == nil || ctx.Err() != nil {
		return nil
	}
	if l.Network == "" {
		return fmt.Errorf("serve names on the host: %w", err)
	}
	return fmt.Errorf("serve names of network %s: %w", l.Network, err)
}

// worker is what one goroutine needs to answer.
type worker struct {
	s *Server
	l *Listen
	q question
	n counters
}

func (s *Server) newWorker(l *Listen) *worker {
	w := &worker{s: s, l: l}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count = append(s.count, &w.n)
	return w
}

func (w *worker) close() {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.count {
		if c == &w.n {
			s.count = append(s.count[:i], s.count[i+1:]...)
			c.addTo(&s.past)
			return
		}
	}
}

// answer makes the answer to a request in b, or says that it must be asked of others; with both, the answer is good and
// is to be fetched anew meanwhile. Neither means that nothing may be answered.
func (w *worker) answer(b, req []byte, udp bool) (out []byte, ask *route) {
	q := &w.q
	if !q.parse(req) {
		w.n.dropped.Add(1)
		return nil, nil
	}
	w.n.queries.Add(1)
	var ra uint16
	if w.l.Forward {
		ra = flagRA
	}
	switch {
	case q.rcode != rcodeSuccess:
		w.n.unfit.Add(1)
		return refusal(b, req, q, ra, q.rcode), nil
	case q.qclass != classIN || q.qtype == typeAXFR || q.qtype == typeIXFR:
		w.n.refused.Add(1)
		return refusal(b, req, q, ra, rcodeRefused), nil
	}
	f := w.s.view.Load().find(w.l.Network, q)
	if w.l.Network == "" && f.zone != nil {
		f.zone.asked.Store(time.Now().Unix())
		if !f.zone.followed {
			return nil, &route{follow: f.zone.network.Name}
		}
	}
	switch {
	case f.is == known:
		w.n.own.Add(1)
		return own(b, req, q, f, ra, q.limit(udp)), nil
	case f.is == unknown:
		w.n.nxdomain.Add(1)
		return own(b, req, q, f, ra, q.limit(udp)), nil
	case !w.l.Forward:
		w.n.refused.Add(1)
		return refusal(b, req, q, ra, rcodeRefused), nil
	}
	r := w.s.fwd.route(f.zone, q)
	if out, ok, again := w.s.fwd.cached(b, req, q, r, udp); ok {
		w.n.cached.Add(1)
		if again {
			return out, r
		}
		return out, nil
	}
	w.n.forwarded.Add(1)
	return nil, r
}

// find looks a query's name up as seen on a network's listener, or with no network on the host's.
func (v *View) find(network string, q *question) found {
	if network == "" {
		return v.lookupAll(q)
	}
	return lookupIn(v.zones[network], network, v.domain, q)
}

// resolve answers a question that cannot be answered at once; see forwarder.resolve. A network that the host asks about
// and that is not followed yet is followed first.
func (s *Server) resolve(ctx context.Context, l *Listen, r *route, req []byte, from netip.Addr, udp bool, write func([]byte)) {
	if r.follow == "" {
		s.fwd.resolve(ctx, r, req, from, udp, write)
		return
	}
	s.follow(ctx, r.follow)
	w := &worker{s: s, l: l}
	out, again := w.answer(nil, req, udp)
	if again != nil { // it could not be read: the asker should try again
		out = refusal(nil, req, &w.q, 0, rcodeServFail)
	}
	write(out)
}

// lookupIn looks a name up in a network's zone. A listener whose network is not in the view, as before the first one
// is made, knows that its zones are its own but nothing in them.
func lookupIn(z *zone, network string, domain []byte, q *question) found {
	if z != nil {
		return z.lookup(q)
	}
	wire, ok := wireName(network)
	if !ok {
		return found{}
	}
	empty := zone{suffixes: [3][]byte{append(wire[:len(wire)-1:len(wire)-1], domain...), wire, domain}}
	return empty.lookup(q)
}

// counters count what one socket did.
type counters struct {
	queries, own, nxdomain, refused, unfit, dropped, cached, forwarded atomic.Uint64
	_                                                                  [64]byte
}

func (c *counters) addTo(s *Stats) {
	s.Queries += c.queries.Load()
	s.Own += c.own.Load()
	s.NXDomain += c.nxdomain.Load()
	s.Refused += c.refused.Load()
	s.Unfit += c.unfit.Load()
	s.Dropped += c.dropped.Load()
	s.Cached += c.cached.Load()
	s.Forwarded += c.forwarded.Load()
}

// Stats counts since the server was made.
type Stats struct {
	Queries   uint64 // that were answered, or will be
	Own       uint64 // names of ours that exist
	NXDomain  uint64 // names of ours that do not
	Refused   uint64
	Unfit     uint64 // malformed, or of a kind that is not spoken here
	Dropped   uint64 // not even requests, or more than can be done at once
	Cached    uint64 // answered from the cache
	Forwarded uint64 // asked of upstreams, or waiting for the same question

	Upstream      uint64 // exchanges with upstreams
	UpstreamFail  uint64 // of those: no answer, or a bad one
	Truncated     uint64 // of those: asked again over TCP
	Stale         uint64 // answered from what was out of date (RFC 8767)
	Prefetched    uint64
	Overload      uint64 // not asked because too much was under way
	Loops         uint64 // queries that an upstream sent back to us
	CacheEntries  uint64
	CacheBytes    uint64
	CacheEvicted  uint64
	FlightsShared uint64 // waited for the same question of another asker
}

// Stats returns what was counted.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	out := s.past
	for _, c := range s.count {
		c.addTo(&out)
	}
	s.mu.Unlock()
	s.fwd.addTo(&out)
	return out
}
