package dns

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"weft/pkg/overlay"
)

// later moves the cache's clock.
func (s *Server) later(d time.Duration) { s.fwd.cache.start = s.fwd.cache.start.Add(-d) }

var blue = Listen{Network: "blue", Forward: true}

// withSOA answers with a code and an SOA record in the authority section.
func withSOA(rcode int, soa string) func(*dns.Msg, bool) *dns.Msg {
	return func(q *dns.Msg, udp bool) *dns.Msg {
		m := says(rcode)(q, udp)
		rr, err := dns.NewRR(soa)
		if err != nil {
			panic("dns test: " + err.Error())
		}
		m.Ns = []dns.RR{rr}
		return m
	}
}

// TestCache is what is kept, how long, and what comes back from it.
func TestCache(t *testing.T) {
	const soa = "example.org. 100 IN SOA ns.example.org. host.example.org. 1 2 3 4 60"
	for _, tc := range []struct {
		name   string
		answer func(*dns.Msg, bool) *dns.Msg
		// after is how long the second question comes after the first, want the records of its answer, asked how often the
		// upstream was asked then.
		after time.Duration
		want  []string
		ns    []string
		asked int32
	}{
		{"fresh, TTL counts down", says(0, orgA), 20 * time.Second, []string{"example.org. 40 IN A 198.51.100.1"}, nil, 1},
		{"out of date is asked again", says(0, orgA), 61 * time.Second, []string{orgA}, nil, 2},
		{"the smallest TTL counts", says(0, orgA, "example.org. 5 IN A 198.51.100.2"), 6 * time.Second,
			[]string{orgA, "example.org. 5 IN A 198.51.100.2"}, nil, 2},
		{"TTL 0 is not kept", says(0, "example.org. 0 IN A 198.51.100.1"), 0, []string{"example.org. 0 IN A 198.51.100.1"}, nil, 2},
		{"NXDOMAIN is kept as the SOA says (RFC 2308)", withSOA(dns.RcodeNameError, soa), 59 * time.Second, nil,
			[]string{"example.org. 41 IN SOA ns.example.org. host.example.org. 1 2 3 4 60"}, 1},
		{"and no longer", withSOA(dns.RcodeNameError, soa), 61 * time.Second, nil, []string{soa}, 2},
		{"no data likewise", withSOA(0, soa), 59 * time.Second, nil, []string{"example.org. 41 IN SOA ns.example.org. host.example.org. 1 2 3 4 60"}, 1},
		{"without SOA it is not kept", says(dns.RcodeNameError), 0, nil, nil, 2},
		{"a failure is kept a second (RFC 9520)", says(dns.RcodeServerFailure), 500 * time.Millisecond, nil, nil, 1},
		{"and no longer", says(dns.RcodeServerFailure), 1500 * time.Millisecond, nil, nil, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			u := startUpstream(t, false, tc.answer)
			s := newServer(u.addr)
			s.respond(t.Context(), blue, query("example.org.", dns.TypeA), true)
			s.later(tc.after)
			for _, edns := range []bool{false, true} {
				q := query("eXample.oRg.", dns.TypeA)
				if edns {
					q.SetEdns0(1232, false)
				}
				m := s.respond(t.Context(), blue, q, true)
				if edns && tc.asked == 1 {
					section(t, "answer", tc.want, lower(t, m.Answer))
					section(t, "authority", tc.ns, lower(t, m.Ns))
				}
				if m.Id != q.Id || m.Question[0] != q.Question[0] || m.Authoritative || !m.RecursionAvailable || (m.IsEdns0() != nil) != edns {
					t.Errorf("not an answer to the question:\n%s", m)
				}
				if n := u.udp.Load(); !edns && n != tc.asked {
					t.Errorf("the upstream was asked %d times, want %d", n, tc.asked)
				}
			}
		})
	}
}

// lower writes records anew in lower case: names that point to the question have the asker's.
func lower(t *testing.T, rrs []dns.RR) (out []dns.RR) {
	for _, rr := range rrs {
		low, err := dns.NewRR(strings.ReplaceAll(strings.ToLower(rr.String()), "\tin\t", "\tIN\t"))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, low)
	}
	return out
}

// TestStale: RFC 8767. What is out of date is answered when nobody answers in time, with a TTL of 30.
func TestStale(t *testing.T) {
	for _, failing := range []string{"SERVFAIL", "silent", "slow"} {
		t.Run(failing, func(t *testing.T) {
			t.Parallel()
			var down atomic.Bool
			u := startUpstream(t, false, func(q *dns.Msg, udp bool) *dns.Msg {
				switch {
				case !down.Load():
					return says(0, orgA)(q, udp)
				case failing == "silent":
					return nil
				case failing == "slow":
					time.Sleep(400 * time.Millisecond)
					return says(0, "example.org. 60 IN A 198.51.100.9")(q, udp)
				}
				return says(dns.RcodeServerFailure)(q, udp)
			})
			s := New(Config{Log: quiet(), Upstreams: func() []netip.AddrPort { return []netip.AddrPort{u.addr} },
				Clock: Clock{Resend: 100 * time.Millisecond, Try: 600 * time.Millisecond, Total: time.Second, Stale: 150 * time.Millisecond}})
			s.SetView(build(world()))
			s.respond(t.Context(), blue, query("example.org.", dns.TypeA), true)
			down.Store(true)
			s.later(time.Hour)
			m := s.respond(t.Context(), blue, query("example.org.", dns.TypeA), true)
			section(t, "stale", []string{"example.org. 30 IN A 198.51.100.1"}, m.Answer)
			asked := u.udp.Load()
			m = s.respond(t.Context(), blue, query("example.org.", dns.TypeA), true)
			if failing == "slow" {
				section(t, "the late answer", []string{"example.org. 60 IN A 198.51.100.9"}, m.Answer)
				return
			}
			section(t, "stale again", []string{"example.org. 30 IN A 198.51.100.1"}, m.Answer)
			if u.udp.Load() != asked {
				t.Error("it was asked again at once: RFC 8767 section 5 wants 30 s between")
			}
			s.later(25 * time.Hour)
			if m = s.respond(t.Context(), blue, query("example.org.", dns.TypeA), true); m.Rcode != dns.RcodeServerFailure {
				t.Errorf("after a day it is still answered: %s", m)
			}
			if s.Stats().Stale < 2 {
				t.Errorf("stats: %+v", s.Stats())
			}
		})
	}
}

// TestPrefetch: what is asked for near its end is fetched again, and the asker does not wait.
func TestPrefetch(t *testing.T) {
	u := startUpstream(t, false, says(0, orgA))
	s := newServer(u.addr)
	for range 4 {
		s.respond(t.Context(), blue, query("example.org.", dns.TypeA), true)
	}
	s.later(57 * time.Second)
	m := s.respond(t.Context(), blue, query("example.org.", dns.TypeA), true)
	section(t, "before", []string{"example.org. 3 IN A 198.51.100.1"}, m.Answer)
	m = s.respond(t.Context(), blue, query("example.org.", dns.TypeA), true)
	section(t, "after", []string{orgA}, m.Answer)
	if u.udp.Load() != 2 || s.Stats().Prefetched != 1 {
		t.Errorf("asked %d times, %+v", u.udp.Load(), s.Stats())
	}
}

// TestSingleflight: many who ask the same at once make one question.
func TestSingleflight(t *testing.T) {
	u := startUpstream(t, false, func(q *dns.Msg, udp bool) *dns.Msg {
		time.Sleep(100 * time.Millisecond)
		return says(0, orgA)(q, udp)
	})
	s := newServer(u.addr)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			m := s.respond(t.Context(), blue, query("example.org.", dns.TypeA), true)
			section(t, "answer", []string{orgA}, m.Answer)
		})
	}
	wg.Wait()
	if u.udp.Load() != 1 {
		t.Errorf("the upstream was asked %d times", u.udp.Load())
	}
}

// TestCacheBounded: any number of names leaves the cache within its memory.
func TestCacheBounded(t *testing.T) {
	c := newCache(64 << 10)
	for i := range 10_000 {
		c.put(fmt.Appendf(nil, "name-%d", i), &cacheEntry{msg: make([]byte, 100), ttl: 60, stored: c.now()})
	}
	c.put([]byte("huge"), &cacheEntry{msg: make([]byte, 60_000), ttl: 60})
	var s Stats
	c.addTo(&s)
	if s.CacheBytes > 64<<10 || s.CacheEntries < 50 || s.CacheEvicted == 0 {
		t.Errorf("%+v", s)
	}
}

// TestRoutes: Consul's names go to Consul, a network's conditional zones to their own servers, an internal network's
// nowhere.
func TestRoutes(t *testing.T) {
	up, cons, corp := startUpstream(t, false, says(0, orgA)), startUpstream(t, false, says(0, "x. 60 IN A 198.51.100.2")),
		startUpstream(t, false, says(0, "x. 60 IN A 198.51.100.3"))
	w := world()
	n := w.Networks["blue"]
	n.Labels = map[string]string{ZoneLabel + "corp.example.org": corp.addr.String(), ZoneLabel + "bad": "nobody"}
	w.Networks["blue"] = n
	s := New(Config{Log: quiet(), Upstreams: func() []netip.AddrPort { return []netip.AddrPort{up.addr} }, Consul: cons.addr})
	s.SetView(build(w))
	for _, tc := range []struct {
		name     string
		l        Listen
		up, cons int32
		corp     int32
		rcode    int
	}{
		{"www.example.org.", blue, 1, 0, 0, 0},
		{"web.service.Consul.", blue, 0, 1, 0, 0},
		{"a.corp.example.org.", blue, 0, 0, 1, 0},
		{"corp.example.org.", blue, 0, 0, 1, 0},
		{"xcorp.example.org.", blue, 1, 0, 0, 0},
		{"b.corp.example.org.", Listen{Network: "green", Forward: true}, 1, 0, 0, 0},
		{"c.bad.", blue, 1, 0, 0, 0},
		{"web.service.consul.", Listen{Network: "blue"}, 0, 0, 0, dns.RcodeRefused},
		{"a.corp.example.org.", Listen{Network: "blue"}, 0, 0, 0, dns.RcodeRefused},
		{"web.service.consul.", Listen{}, 0, 0, 0, dns.RcodeRefused},
	} {
		for _, u := range []*upstream{up, cons, corp} {
			u.udp.Store(0)
		}
		m := s.respond(t.Context(), tc.l, query(tc.name, dns.TypeA), true)
		if m.Rcode != tc.rcode || up.udp.Load() != tc.up || cons.udp.Load() != tc.cons || corp.udp.Load() != tc.corp {
			t.Errorf("%s on %+v: %s, upstream %d, consul %d, zone %d", tc.name, tc.l, dns.RcodeToString[m.Rcode], up.udp.Load(), cons.udp.Load(), corp.udp.Load())
		}
	}
}

// TestLoop: an upstream that asks us what we ask it is refused at once.
func TestLoop(t *testing.T) {
	var server atomic.Pointer[Server]
	refused := make(chan int, 10)
	u := startUpstream(t, false, func(q *dns.Msg, udp bool) *dns.Msg {
		wire, _ := query("example.org.", dns.TypeA).Pack()
		s := server.Load()
		w := s.newWorker(&blue)
		defer w.close()
		_, ask := w.answer(nil, wire, true)
		s.fwd.resolve(context.Background(), ask, wire, netip.MustParseAddr("127.0.0.1"), true, func(b []byte) { refused <- int(b[3] & 0xf) })
		return says(dns.RcodeServerFailure)(q, udp)
	})
	s := newServer(u.addr)
	server.Store(s)
	start := time.Now()
	m := s.respond(t.Context(), blue, query("example.org.", dns.TypeA), true)
	if m.Rcode != dns.RcodeServerFailure || time.Since(start) > time.Second {
		t.Errorf("after %v: %s", time.Since(start), m)
	}
	if got := <-refused; got != rcodeRefused || s.Stats().Loops == 0 {
		t.Errorf("the loop was answered with %d, %+v", got, s.Stats())
	}
}

// TestFailover: a server that does not answer delays the first question a little, and the following not at all.
func TestFailover(t *testing.T) {
	silent := startUpstream(t, false, func(*dns.Msg, bool) *dns.Msg { return nil })
	good := startUpstream(t, false, says(0, orgA))
	s := newServer(silent.addr, good.addr)
	var took []time.Duration
	for i := range 3 {
		start := time.Now()
		m := s.respond(t.Context(), blue, query(fmt.Sprintf("n%d.example.org.", i), dns.TypeA), true)
		took = append(took, time.Since(start))
		if m.Rcode != 0 {
			t.Errorf("question %d: %s", i, m)
		}
		if i == 0 {
			s.fwd.learn(silent.addr, 0, false) // its time-out lies in the future still
		}
	}
	if took[0] > 1500*time.Millisecond || took[1] > 300*time.Millisecond || took[2] > 300*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}

// TestOldServer: a server that does not know EDNS is asked without.
func TestOldServer(t *testing.T) {
	u := startUpstream(t, false, func(q *dns.Msg, udp bool) *dns.Msg {
		if q.IsEdns0() != nil {
			return says(dns.RcodeFormatError)(q, udp)
		}
		return says(0, orgA)(q, udp)
	})
	m := newServer(u.addr).respond(t.Context(), blue, query("example.org.", dns.TypeA).SetEdns0(1232, true), true)
	section(t, "answer", []string{orgA}, m.Answer)
}

// TestFollow: a network that the host asks about and that is not followed is followed first.
func TestFollow(t *testing.T) {
	var s *Server
	asked := 0
	follow := func(_ context.Context, network string) {
		asked++
		if network != "blue" {
			t.Errorf("network %q", network)
		}
		s.SetView(build(world()))
	}
	s = New(Config{Log: quiet(), Follow: follow})
	w := world()
	w.Endpoints = nil
	s.SetView(Build(Input{Snapshot: w, Domain: "weft", Follows: map[string]bool{}}))
	for range 2 {
		m := s.respondHost(t.Context(), query("db.blue.weft.", dns.TypeA))
		section(t, "answer", []string{"db.blue.weft. 5 IN A 10.0.0.4"}, m.Answer)
	}
	if asked != 1 || s.View().Asked("blue").IsZero() || !s.View().Asked("green").IsZero() {
		t.Errorf("followed %d times, asked at %v", asked, s.View().Asked("blue"))
	}
}

func (s *Server) respondHost(ctx context.Context, q *dns.Msg) *dns.Msg {
	wire, err := q.Pack()
	if err != nil {
		panic("dns test: " + err.Error())
	}
	l := Listen{}
	w := s.newWorker(&l)
	defer w.close()
	out, ask := w.answer(nil, wire, true)
	if ask != nil {
		s.resolve(ctx, &l, ask, wire, netip.Addr{}, true, func(b []byte) { out = b })
	}
	m := new(dns.Msg)
	if err := m.Unpack(out); err != nil {
		panic("dns test: " + err.Error())
	}
	return m
}

// TestExplain: the answer and why.
func TestExplain(t *testing.T) {
	u := startUpstream(t, false, says(0, orgA))
	s := New(Config{Log: quiet(), Upstreams: func() []netip.AddrPort { return []netip.AddrPort{u.addr} }})
	s.SetView(build(town()))
	for _, tc := range []struct {
		network, name, qtype, rcode, source string
		instances, answered                 int
	}{
		{"app", "sick", "A", "NOERROR", "records", 2, 1},
		{"app", "ill.app.weft", "A", "NOERROR", "records", 2, 2},
		{"app", "drained.app", "A", "NXDOMAIN", "records", 1, 0},
		{"app", "10.0.0.2", "PTR", "NOERROR", "records", 0, 0},
		{"app", "example.org", "a", "NOERROR", "upstreams", 0, 0},
		{"app", "example.org", "a", "NOERROR", "cache", 0, 0},
		{"", "example.org", "A", "REFUSED", "nobody", 0, 0},
		{"", "web.my.app.weft", "A", "NOERROR", "records", 1, 1},
	} {
		x, err := s.Explain(t.Context(), Listen{Network: tc.network, Forward: tc.network != ""}, tc.name, tc.qtype)
		answered := 0
		for _, i := range x.Instances {
			if i.Answered {
				answered++
			}
		}
		if err != nil || x.Rcode != tc.rcode || x.Source != tc.source || len(x.Instances) != tc.instances || answered != tc.answered || len(x.Why) == 0 {
			t.Errorf("%s %s on %q: %v, %+v", tc.name, tc.qtype, tc.network, err, x)
		}
	}
	if _, err := s.Explain(t.Context(), Listen{}, "x", "NONSENSE"); err == nil {
		t.Error("a type that does not exist is taken")
	}
}

// TestZoneLabels: the longest zone wins, whatever the order of the labels.
func TestZoneLabels(t *testing.T) {
	n := overlay.Network{Labels: map[string]string{ZoneLabel + "org": "192.0.2.1", ZoneLabel + "example.org": "192.0.2.2:5353, 2001:db8::1", "other": "x"}}
	got := conditionals(n)
	if len(got) != 2 || text(got[0].suffix) != "example.org" || fmt.Sprint(got[0].servers) != "[192.0.2.2:5353 [2001:db8::1]:53]" {
		t.Errorf("%+v", got)
	}
}

func TestCheckLabels(t *testing.T) {
	for value, ok := range map[string]bool{"192.0.2.1": true, "192.0.2.1, [2001:db8::1]:5353": true, "": false, "ns.example.org": false, "192.0.2.1,": false} {
		if err := CheckLabels(map[string]string{"a": "b", ZoneLabel + "example.org": value}); (err == nil) != ok {
			t.Errorf("%q: %v", value, err)
		}
	}
	if CheckLabels(map[string]string{ZoneLabel + "a..b": "192.0.2.1"}) == nil || CheckLabels(map[string]string{ZoneLabel: "192.0.2.1"}) == nil {
		t.Error("a zone that is no name is taken")
	}
}
