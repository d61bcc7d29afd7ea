package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"weft/pkg/overlay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world has network blue with three endpoints on two nodes, and green with one.
func world() *overlay.Snapshot {
	net := func(name, id, subnet string) overlay.Network {
		p := netip.MustParsePrefix(subnet)
		return overlay.Network{Name: name, ID: overlay.NetworkID(id), Subnets: []netip.Prefix{p}, Gateway: p.Addr().Next()}
	}
	blue, green := net("blue", "b1", "10.0.0.0/24"), net("green", "g1", "10.1.0.0/24")
	end := func(name, addr string, services ...string) overlay.Endpoint {
		return overlay.Endpoint{ID: overlay.EndpointID(name), Name: name, Address: netip.MustParseAddr(addr), Services: services}
	}
	aliased := end("db.1", "10.0.0.4", "db")
	aliased.Aliases = []string{"api.example.org"}
	set := func(node string, n overlay.Network, endpoints ...overlay.Endpoint) overlay.EndpointSet {
		return overlay.EndpointSet{Node: node, Network: n.Name, NetworkID: n.ID, Endpoints: endpoints}
	}
	return &overlay.Snapshot{
		Nodes:    map[string]overlay.Node{"n1": {Name: "n1"}, "n2": {Name: "n2"}, "gone": {Name: "gone", Left: time.Unix(1, 0)}},
		Networks: map[string]overlay.Network{"blue": blue, "green": green},
		Endpoints: []overlay.EndpointSet{
			set("n1", blue, end("web-1", "10.0.0.2", "web"), aliased),
			set("n2", blue, end("web-2", "10.0.0.3", "web"), end("outside", "192.0.2.1", "web"), end("gw", "10.0.0.1", "web")),
			set("gone", blue, end("web-3", "10.0.0.9", "web")),
			set("n1", green, end("web-1", "10.1.0.2", "web")),
		},
	}
}

// Case is a question and what must come back, in zone-file notation. Answers are compared as a set.
type Case struct {
	Name     string
	Network  string // default blue
	Internal bool   // the listener does not forward
	Qname    string
	Qtype    uint16 // default A
	Rcode    int
	Answer   []string
	Ns       []string
	Foreign  bool // the answer must not be authoritative
}

func (c Case) check(t *testing.T, m *dns.Msg) {
	t.Helper()
	if m == nil {
		t.Fatal("no answer")
	}
	if m.Rcode != c.Rcode {
		t.Errorf("rcode is %s, want %s", dns.RcodeToString[m.Rcode], dns.RcodeToString[c.Rcode])
	}
	if m.Authoritative == c.Foreign {
		t.Errorf("authoritative is %v", m.Authoritative)
	}
	if !m.Response || m.RecursionAvailable == c.Internal {
		t.Errorf("flags are %s", &m.MsgHdr)
	}
	section(t, "answer", c.Answer, m.Answer)
	section(t, "authority", c.Ns, m.Ns)
	if _, err := m.Pack(); err != nil {
		t.Errorf("answer does not pack: %v", err)
	}
}

func section(t *testing.T, name string, want []string, got []dns.RR) {
	t.Helper()
	left := map[string]int{}
	for _, w := range want {
		rr, err := dns.NewRR(w)
		if err != nil {
			t.Fatalf("test's own record %q: %v", w, err)
		}
		left[rr.String()]++
	}
	for _, rr := range got {
		if left[rr.String()]--; left[rr.String()] < 0 {
			t.Errorf("%s: not wanted: %s", name, rr)
		}
	}
	for rr, n := range left {
		if n > 0 {
			t.Errorf("%s: missing: %s", name, rr)
		}
	}
}

func query(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, qtype)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// newServer answers from world and asks the given upstreams.
func newServer(upstreams ...netip.AddrPort) *Server {
	s := New(Config{Log: quiet(), Upstreams: func() []netip.AddrPort { return upstreams }})
	s.SetView(build(world()))
	return s
}

// build is a view of w with the usual domain.
func build(w *overlay.Snapshot) *View { return Build(Input{Snapshot: w, Domain: "Weft"}) }

// respond is the answer to q as asked on l, nil when there is none.
func (s *Server) respond(ctx context.Context, l Listen, q *dns.Msg, udp bool) *dns.Msg {
	wire, err := q.Pack()
	if err != nil {
		panic("dns test: " + err.Error())
	}
	out := s.respondWire(ctx, l, wire, udp)
	m := new(dns.Msg)
	if out == nil {
		return nil
	}
	if err := m.Unpack(out); err != nil {
		panic(fmt.Sprintf("dns test: answer cannot be read: %v: %x", err, out))
	}
	m.Compress = true
	return m
}

func (s *Server) respondWire(ctx context.Context, l Listen, wire []byte, udp bool) []byte {
	w := s.newWorker(&l)
	defer w.close()
	out, ask := w.answer(nil, wire, udp)
	if ask != nil {
		quiet := out != nil
		s.fwd.resolve(ctx, ask, wire, netip.Addr{}, udp, func(b []byte) {
			if !quiet {
				out = b
			}
		})
	}
	return out
}

// upstream is a fake name server on 127.0.0.1 that counts what it is asked.
type upstream struct {
	addr     netip.AddrPort
	udp, tcp atomic.Int32
}

// startUpstream serves answer over UDP and, unless noTCP, over TCP.
func startUpstream(t *testing.T, noTCP bool, answer func(q *dns.Msg, udp bool) *dns.Msg) *upstream {
	t.Helper()
	pc, ln := sockets(t)
	u := &upstream{addr: pc.LocalAddr().(*net.UDPAddr).AddrPort()}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		_, udp := w.RemoteAddr().(*net.UDPAddr)
		if udp {
			u.udp.Add(1)
		} else {
			u.tcp.Add(1)
		}
		if m := answer(q, udp); m != nil {
			_ = w.WriteMsg(m) // the test sees what is missing
		}
	})
	servers := []*dns.Server{{PacketConn: pc, Handler: h}}
	if noTCP {
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
	} else {
		servers = append(servers, &dns.Server{Listener: ln, Handler: h})
	}
	for _, srv := range servers {
		started, ended := make(chan struct{}), make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(ended)
			if err := srv.ActivateAndServe(); err != nil {
				t.Errorf("upstream: %v", err)
			}
		}()
		<-started
		t.Cleanup(func() {
			if err := srv.Shutdown(); err != nil {
				t.Errorf("stop upstream: %v", err)
			}
			<-ended
		})
	}
	return u
}

// sockets are a UDP and a TCP socket on the same free port of 127.0.0.1.
func sockets(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, ln
		}
		_ = pc.Close() // another program has the TCP port
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// says answers every question with these records.
func says(rcode int, records ...string) func(*dns.Msg, bool) *dns.Msg {
	return func(q *dns.Msg, _ bool) *dns.Msg {
		m := new(dns.Msg).SetRcode(q, rcode)
		m.Compress = true
		m.RecursionAvailable = true
		for _, r := range records {
			rr, err := dns.NewRR(r)
			if err != nil {
				panic("dns test: " + err.Error())
			}
			m.Answer = append(m.Answer, rr)
		}
		return m
	}
}

// many is n A records of a name.
func many(name string, n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("%s 60 IN A 198.51.100.%d", strings.TrimSpace(name), i+1))
	}
	return out
}
