package dns

import (
	"context"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// upstreamTimeout is for one server and one try, wall time.
	upstreamTimeout = 2 * time.Second
	// upstreamUDPSize is the buffer for replies to queries without EDNS, in bytes: some servers exceed 512 all the same.
	upstreamUDPSize = 4096
)

// forward asks the upstreams in order, from the host's namespace. A server that does not answer, or answers SERVFAIL or
// REFUSED, is followed by the next; NXDOMAIN is an answer. Over UDP a truncated reply is asked again over TCP, so that
// the asker gets all that fits.
func (s *Server) forward(ctx context.Context, q *dns.Msg, udp bool) *dns.Msg {
	if s.cfg.Upstreams != nil {
		for _, up := range s.cfg.Upstreams() {
			if m := s.ask(ctx, q, up.String(), udp); m != nil {
				return relay(m, q, udp)
			}
			if ctx.Err() != nil {
				break
			}
		}
	}
	return failure(q, udp)
}

// relay makes an upstream's reply the answer to q. EDNS is spoken between neighbours (RFC 6891 section 6.2.6): who did
// not speak it gets none, and none of the codes that need it.
func relay(m, q *dns.Msg, udp bool) *dns.Msg {
	m.Id, m.Question = q.Id, q.Question
	if q.IsEdns0() == nil {
		m.Extra = withoutOPT(m.Extra)
		if m.Rcode > 0xf {
			m.Rcode = dns.RcodeServerFailure
		}
	}
	m = fit(m, q, udp)
	// There are messages that the library reads but cannot write (FuzzRelay found a URI record): the asker must not wait.
	if _, err := m.Pack(); err != nil {
		return failure(q, udp)
	}
	return m
}

func failure(q *dns.Msg, udp bool) *dns.Msg {
	m := new(dns.Msg)
	m.SetRcode(q, dns.RcodeServerFailure)
	m.RecursionAvailable = true
	return fit(m, q, udp)
}

func withoutOPT(rrs []dns.RR) (out []dns.RR) {
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, rr)
		}
	}
	return out
}

// ask returns nil when the next server should be tried.
func (s *Server) ask(ctx context.Context, q *dns.Msg, server string, udp bool) *dns.Msg {
	out := q.Copy()
	out.Id = dns.Id()
	var cut *dns.Msg // truncated, but better than nothing when TCP does not answer
	for _, proto := range []string{"udp", "tcp"} {
		if proto == "udp" && !udp {
			continue
		}
		m, err := exchange(ctx, out, server, proto)
		switch {
		case m != nil && m.Truncated && proto == "udp": // some servers cut inside a record: then there is an error too
			if err == nil && answers(m, out) {
				cut = m
			}
			continue
		case err != nil:
			s.cfg.Log.Debug("upstream name server does not answer", "server", server, "proto", proto, "err", err)
			return cut
		case !answers(m, out):
			s.cfg.Log.Debug("upstream name server answers another question", "server", server, "proto", proto)
			return cut
		case m.Rcode == dns.RcodeServerFailure || m.Rcode == dns.RcodeRefused:
			return nil
		}
		return m
	}
	return cut
}

// answers reports whether m is a reply to q and not something that only has its id.
func answers(m, q *dns.Msg) bool {
	return m.Response && len(m.Question) == 1 && m.Question[0].Qtype == q.Question[0].Qtype &&
		m.Question[0].Qclass == q.Question[0].Qclass && strings.EqualFold(m.Question[0].Name, q.Question[0].Name)
}

// exchange asks one server once. It returns as soon as ctx ends, which the library's own exchange does not: a listener
// that is being closed would wait for silent servers.
func exchange(ctx context.Context, q *dns.Msg, server, proto string) (*dns.Msg, error) {
	c := dns.Client{Net: proto, Timeout: upstreamTimeout, UDPSize: upstreamUDPSize}
	conn, err := c.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // unblocks the read
	defer stop()
	m, _, err := c.ExchangeWithConnContext(ctx, q, conn)
	return m, err
}
