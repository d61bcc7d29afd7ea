package dns

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const orgA = "example.org. 60 IN A 198.51.100.1"

func TestForward(t *testing.T) {
	good := says(dns.RcodeSuccess, orgA)
	big := says(dns.RcodeSuccess, many("example.org.", 60)...)
	truncated := func(q *dns.Msg, udp bool) *dns.Msg {
		if !udp {
			return big(q, udp)
		}
		m := good(q, udp)
		m.Truncated = true
		return m
	}
	other := func(q *dns.Msg, udp bool) *dns.Msg {
		m := good(q, udp)
		m.Question[0].Name = "example.net."
		return m
	}
	lower := func(q *dns.Msg, udp bool) *dns.Msg {
		m := good(q, udp)
		m.Question[0].Name = "example.org."
		return m
	}
	optOnly := func(q *dns.Msg, udp bool) *dns.Msg {
		m := says(dns.RcodeBadVers)(q, udp)
		return m.SetEdns0(1232, false)
	}
	silent := func(*dns.Msg, bool) *dns.Msg { return nil }
	type server struct {
		answer func(*dns.Msg, bool) *dns.Msg
		noTCP  bool
		// how often it must be asked
		udp, tcp int32
	}
	for _, tc := range []struct {
		Case
		servers   []server
		viaTCP    bool
		truncated bool
	}{
		{Case: Case{Name: "answer", Answer: []string{orgA}}, servers: []server{{good, false, 1, 0}, {good, false, 0, 0}}},
		{Case: Case{Name: "asked over TCP", Answer: []string{orgA}}, servers: []server{{good, false, 1, 0}}, viaTCP: true},
		{Case: Case{Name: "SERVFAIL goes on", Answer: []string{orgA}},
			servers: []server{{says(dns.RcodeServerFailure), false, 1, 0}, {good, false, 1, 0}}},
		{Case: Case{Name: "REFUSED goes on", Answer: []string{orgA}},
			servers: []server{{says(dns.RcodeRefused), false, 1, 0}, {good, false, 1, 0}}},
		{Case: Case{Name: "NXDOMAIN is final", Rcode: dns.RcodeNameError},
			servers: []server{{says(dns.RcodeNameError), false, 1, 0}, {good, false, 0, 0}}},
		{Case: Case{Name: "all fail", Rcode: dns.RcodeServerFailure},
			servers: []server{{says(dns.RcodeServerFailure), false, 1, 0}, {says(dns.RcodeRefused), false, 1, 0}}},
		{Case: Case{Name: "none", Rcode: dns.RcodeServerFailure}},
		{Case: Case{Name: "another question's answer goes on", Answer: []string{orgA}},
			servers: []server{{other, false, 1, 0}, {good, false, 1, 0}}},
		{Case: Case{Name: "case is given back", Qname: "eXample.ORG.", Answer: []string{"eXample.ORG. 60 IN A 198.51.100.1"}}, servers: []server{{lower, false, 1, 0}}},
		{Case: Case{Name: "truncated is asked over TCP", Answer: many("example.org.", 60)[:30]},
			servers: []server{{truncated, false, 1, 1}}, truncated: true},
		{Case: Case{Name: "truncated, TCP does not answer", Answer: []string{orgA}},
			servers: []server{{truncated, true, 1, 0}}, truncated: true},
		{Case: Case{Name: "code that needs EDNS", Rcode: dns.RcodeServerFailure}, servers: []server{{optOnly, false, 1, 0}}},
		{Case: Case{Name: "silent goes on", Answer: []string{orgA}}, servers: []server{{silent, false, 1, 0}, {good, false, 1, 0}}},
	} {
		t.Run(tc.Name, func(t *testing.T) {
			t.Parallel()
			var ups []*upstream
			var addrs []netip.AddrPort
			for _, s := range tc.servers {
				u := startUpstream(t, s.noTCP, s.answer)
				ups, addrs = append(ups, u), append(addrs, u.addr)
			}
			if tc.Qname == "" {
				tc.Qname = "example.org."
			}
			tc.Foreign = true
			q := query(tc.Qname, dns.TypeA)
			m := newServer(addrs...).respond(t.Context(), Listen{Network: "blue", Forward: true}, q, !tc.viaTCP)
			if tc.truncated && len(m.Answer) != len(tc.Answer) { // how many fit is the library's business
				tc.Answer = tc.Answer[:min(len(m.Answer), len(tc.Answer))]
			}
			tc.check(t, m)
			if m.Id != q.Id || m.Question[0] != q.Question[0] || m.Truncated != tc.truncated || m.IsEdns0() != nil {
				t.Errorf("not an answer to the question:\n%s", m)
			}
			for i, u := range ups {
				if u.udp.Load() != tc.servers[i].udp || u.tcp.Load() != tc.servers[i].tcp {
					t.Errorf("server %d was asked %d times over UDP and %d over TCP, want %d and %d", i, u.udp.Load(), u.tcp.Load(),
						tc.servers[i].udp, tc.servers[i].tcp)
				}
			}
		})
	}
}

// Over TCP, and with EDNS, an asker gets all of a big answer.
func TestForwardWhole(t *testing.T) {
	all := many("example.org.", 60)
	u := startUpstream(t, false, func(q *dns.Msg, udp bool) *dns.Msg {
		m := says(dns.RcodeSuccess, all...)(q, udp)
		if udp {
			m.Truncate(512)
		}
		return m
	})
	s := newServer(u.addr)
	for _, udp := range []bool{true, false} {
		q := query("example.org.", dns.TypeA).SetEdns0(1232, false)
		m := s.respond(t.Context(), Listen{Network: "blue", Forward: true}, q, udp)
		section(t, "answer", all, m.Answer)
		if m.Truncated || m.IsEdns0() == nil {
			t.Errorf("udp %v: truncated %v, EDNS %v", udp, m.Truncated, m.IsEdns0())
		}
	}
}

// The end of a listener does not wait for a silent server.
func TestForwardEndsWithContext(t *testing.T) {
	asked := make(chan struct{}, 10)
	u := startUpstream(t, false, func(*dns.Msg, bool) *dns.Msg { asked <- struct{}{}; return nil })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	begin := time.Now()
	m := newServer(u.addr, u.addr).respond(ctx, Listen{Network: "blue", Forward: true}, query("example.org.", dns.TypeA), true)
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %s to end", took)
	}
	if m != nil || u.udp.Load() != 1 {
		t.Errorf("after %d tries: %s", u.udp.Load(), m)
	}
}

// A reply that is cut inside a record is asked again over TCP like one that says so properly.
func TestForwardCutReply(t *testing.T) {
	pc, ln := sockets(t)
	addr := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	udp, tcp := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(udp)
		var buf [512]byte
		n, from, err := pc.ReadFrom(buf[:])
		if err != nil {
			return
		}
		var q dns.Msg
		if q.Unpack(buf[:n]) != nil {
			return
		}
		m := says(dns.RcodeSuccess, orgA)(&q, true)
		m.Truncated = true
		wire, _ := m.Pack()
		_, _ = pc.WriteTo(wire[:len(wire)-3], from)
	}()
	srv := &dns.Server{Listener: ln, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		_ = w.WriteMsg(says(dns.RcodeSuccess, orgA)(q, false))
	})}
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	go func() { defer close(tcp); _ = srv.ActivateAndServe() }()
	<-started
	m := newServer(addr).respond(t.Context(), Listen{Network: "blue", Forward: true}, query("example.org.", dns.TypeA), true)
	section(t, "answer", []string{orgA}, m.Answer)
	if err := srv.Shutdown(); err != nil {
		t.Error(err)
	}
	_ = pc.Close()
	<-udp
	<-tcp
}
