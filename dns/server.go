package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// TTL of all answers, in seconds: how long a client may use an address that is gone.
const TTL = 5

// maxUDP is the largest answer over UDP in bytes, whatever larger size the asker offers: it fits every path without
// fragments (RFC 9715 section 3.1), and a size beyond 65507 could not be sent at all.
const maxUDP = 1232

// Config is what a Server needs.
type Config struct {
	Log *slog.Logger
	// Upstreams answer what is not ours; asked per query, in order. Nil or empty: such names get SERVFAIL.
	Upstreams func() []netip.AddrPort
	// Domain is the domain below which every name is also known, without dots at its ends.
	Domain string
}

// Server answers on any number of listeners. Safe for concurrent use.
type Server struct {
	cfg  Config
	view atomic.Pointer[View]
}

// New returns a server with an empty view.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg}
	s.cfg.Domain = strings.ToLower(cfg.Domain)
	s.view.Store(Build(nil))
	return s
}

// SetView swaps the view; queries see the old or the new one, never a mixture.
func (s *Server) SetView(v *View) { s.view.Store(v) }

// Listen is a pair of sockets on which a network's endpoints ask. Serve closes them.
type Listen struct {
	Network string
	// Forward says whether names that are not ours are asked of the upstreams; an internal network's are refused.
	Forward bool
	Packet  net.PacketConn
	Stream  net.Listener
}

// Serve answers until ctx ends, then closes the sockets and returns nil. When one of the sockets fails before that, it
// closes both and returns why.
func (s *Server) Serve(ctx context.Context, l Listen) error {
	g, ctx := errgroup.WithContext(ctx)
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		_, udp := w.RemoteAddr().(*net.UDPAddr)
		m := s.respond(ctx, l, q, udp)
		if err := w.WriteMsg(m); err != nil && ctx.Err() == nil {
			s.cfg.Log.Debug("answer not sent", "network", l.Network, "err", err)
		}
	})
	for _, srv := range []*dns.Server{{PacketConn: l.Packet, Handler: h}, {Listener: l.Stream, Handler: h}} {
		serve(ctx, g, srv, l.Network)
	}
	return errors.Join(g.Wait(), closed(l.Packet.Close()), closed(l.Stream.Close()))
}

// serve runs one socket's server in g until ctx ends, and ends ctx when it fails.
func serve(ctx context.Context, g *errgroup.Group, srv *dns.Server, network string) {
	// miekg/dns refuses a Shutdown that comes before the server has started, and then starts: wait for it.
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	ended := make(chan struct{})
	g.Go(func() error {
		defer close(ended)
		if err := srv.ActivateAndServe(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("serve names of network %s: %w", network, err)
		}
		return nil
	})
	g.Go(func() error {
		select {
		case <-started:
		case <-ended:
			return nil
		}
		select {
		case <-ctx.Done():
		case <-ended:
			return nil
		}
		return srv.Shutdown()
	})
}

// closed forgives the error of closing what Shutdown has closed.
func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// respond makes the answer to q as asked on l.
func (s *Server) respond(ctx context.Context, l Listen, q *dns.Msg, udp bool) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = l.Forward
	if rcode := unfit(q); rcode != dns.RcodeSuccess {
		m.SetRcode(q, rcode)
		return fit(m, q, udp)
	}
	question := q.Question[0]
	name := strings.ToLower(strings.TrimSuffix(question.Name, "."))
	addrs, apex, verdict := s.view.Load().lookup(l.Network, s.cfg.Domain, name)
	switch {
	case question.Qclass != dns.ClassINET || verdict == notOurs && !l.Forward:
		m.SetRcode(q, dns.RcodeRefused)
	case verdict == notOurs:
		return s.forward(ctx, q, udp)
	case verdict == unknown:
		m.SetRcode(q, dns.RcodeNameError)
		m.Authoritative, m.Ns = true, []dns.RR{soa(apex)}
	default:
		m.Authoritative = true
		m.Answer = records(question, addrs)
		if len(m.Answer) == 0 {
			m.Ns = []dns.RR{soa(apex)}
		}
	}
	return fit(m, q, udp)
}

// unfit is the error code for a message that is no query we can answer, RcodeSuccess for one that is.
func unfit(q *dns.Msg) int {
	switch o := q.IsEdns0(); {
	case q.Opcode != dns.OpcodeQuery:
		return dns.RcodeNotImplemented
	case len(q.Question) != 1:
		return dns.RcodeFormatError
	case o != nil && o.Version() != 0:
		return dns.RcodeBadVers // RFC 6891 section 6.1.3
	}
	return dns.RcodeSuccess
}

// records is the addresses of the asked type, in random order.
func records(q dns.Question, addrs []netip.Addr) []dns.RR {
	var out []dns.RR
	for _, i := range rand.Perm(len(addrs)) {
		a := addrs[i]
		switch hdr := (dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: TTL, Rrtype: q.Qtype}); {
		case q.Qtype == dns.TypeA && a.Is4():
			out = append(out, &dns.A{Hdr: hdr, A: a.AsSlice()})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			out = append(out, &dns.AAAA{Hdr: hdr, AAAA: a.AsSlice()})
		}
	}
	return out
}

// soa goes with negative answers (RFC 2308): its last field is how long they may be kept. It stands at the zone that the
// name was found in: a resolver drops one whose owner is not above the name.
func soa(apex string) dns.RR {
	zone := dns.Fqdn(apex)
	return &dns.SOA{Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: TTL},
		Ns: "ns." + zone, Mbox: "hostmaster." + zone, Serial: 1, Refresh: 60, Retry: 60, Expire: 60, Minttl: TTL}
}

// fit cuts an answer to what the asker can take (RFC 1035 section 4.2.1, RFC 6891 section 6.2.5).
func fit(m, q *dns.Msg, udp bool) *dns.Msg {
	size := dns.MaxMsgSize
	o := q.IsEdns0()
	if udp {
		size = dns.MinMsgSize
		if o != nil {
			size = min(max(size, int(o.UDPSize())), maxUDP)
		}
	}
	if o != nil && m.IsEdns0() == nil {
		m.SetEdns0(maxUDP, false)
	}
	m.Truncate(size)
	return m
}
