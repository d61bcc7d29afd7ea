package dns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"weft/pkg/overlay"
)

// town is two networks, one with a dot in its name, on two nodes, with ports, checks, aliases and an IPv6 address.
func town() *overlay.Snapshot {
	net := func(name, id string, subnets ...string) overlay.Network {
		n := overlay.Network{Name: name, ID: overlay.NetworkID(id), Revision: 1}
		for _, s := range subnets {
			n.Subnets = append(n.Subnets, netip.MustParsePrefix(s))
		}
		n.Gateway = n.Subnets[0].Addr().Next()
		return n
	}
	app, dotted := net("app", "a1", "10.0.0.0/24"), net("my.app", "d1", "10.9.0.0/24")
	v6 := net("six", "s1", "2001:db8:1::/64")
	end := func(name, addr string, services ...string) overlay.Endpoint {
		return overlay.Endpoint{ID: overlay.EndpointID("id-" + name), Name: name, Address: netip.MustParseAddr(addr), Services: services}
	}
	ported := func(e overlay.Endpoint, ports ...overlay.Port) overlay.Endpoint { e.Ports = ports; return e }
	health := func(e overlay.Endpoint, h overlay.Health) overlay.Endpoint { e.Health = h; return e }
	http, dns53 := overlay.Port{Name: "http", Port: 8080, Proto: "tcp"}, overlay.Port{Name: "dns", Port: 53, Proto: "udp"}
	alias := end("db.1", "10.0.0.8", "db")
	alias.Aliases = []string{"store"}
	set := func(node string, n overlay.Network, es ...overlay.Endpoint) overlay.EndpointSet {
		return overlay.EndpointSet{Node: node, Network: n.Name, NetworkID: n.ID, Endpoints: es, Revision: 1}
	}
	return &overlay.Snapshot{
		Nodes:    map[string]overlay.Node{"n1": {Name: "n1"}, "n2": {Name: "n2"}},
		Networks: map[string]overlay.Network{"app": app, "my.app": dotted, "six": v6},
		Endpoints: []overlay.EndpointSet{
			set("n1", app, ported(end("web-1", "10.0.0.2", "web"), http, dns53), alias,
				health(end("sick-1", "10.0.0.20", "sick"), overlay.HealthFailing), health(end("sick-2", "10.0.0.21", "sick"), overlay.HealthPassing),
				health(end("ill-1", "10.0.0.22", "ill"), overlay.HealthFailing),
				health(end("drained", "10.0.0.23", "drained-service"), overlay.HealthDraining)),
			set("n2", app, ported(end("web-2", "10.0.0.3", "web"), overlay.Port{Name: "http", Port: 9090, Proto: "tcp"}),
				health(end("ill-2", "10.0.0.24", "ill"), overlay.HealthStarting)),
			set("n1", dotted, end("web.x", "10.9.0.2", "web", "a.b")),
			set("n1", v6, end("v6-1", "2001:db8:1::5", "web")),
		},
	}
}

const (
	soaApp     = "app. 5 IN SOA ns.app. hostmaster.app. 1 60 60 60 5"
	soaAppWeft = "app.weft. 5 IN SOA ns.app.weft. hostmaster.app.weft. 1 60 60 60 5"
)

// TestNames is every form of name with every type, in zone-file notation.
func TestNames(t *testing.T) {
	hinfo := func(name string) string { return name + ` 5 IN HINFO "RFC8482" ""` }
	soa := func(zone string) string {
		return fmt.Sprintf("%[1]s 5 IN SOA ns.%[1]s hostmaster.%[1]s 1 60 60 60 5", zone)
	}
	for _, c := range []struct {
		Case
		extra []string
	}{
		{Case: Case{Name: "node-scoped", Qname: "web.n1.node.app.", Answer: []string{"web.n1.node.app. 5 IN A 10.0.0.2"}}},
		{Case: Case{Name: "node-scoped below the domain", Qname: "web.n2.node.app.weft.", Answer: []string{"web.n2.node.app.weft. 5 IN A 10.0.0.3"}}},
		{Case: Case{Name: "node-scoped alone", Qname: "web.n2.node.", Answer: []string{"web.n2.node. 5 IN A 10.0.0.3"}}},
		{Case: Case{Name: "node without the service", Qname: "db.n2.node.app.", Rcode: dns.RcodeNameError, Ns: []string{soaApp}}},
		{Case: Case{Name: "alias", Qname: "store.app.weft.", Answer: []string{"store.app.weft. 5 IN A 10.0.0.8"}}},
		{Case: Case{Name: "alias below the domain", Qname: "store.weft.", Answer: []string{"store.weft. 5 IN A 10.0.0.8"}}},
		{Case: Case{Name: "SRV", Qname: "_http._tcp.web.app.", Qtype: dns.TypeSRV, Answer: []string{
			"_http._tcp.web.app. 5 IN SRV 1 1 8080 web-1.app.weft.", "_http._tcp.web.app. 5 IN SRV 1 1 9090 web-2.app.weft."}},
			extra: []string{"web-1.app.weft. 5 IN A 10.0.0.2", "web-2.app.weft. 5 IN A 10.0.0.3"}},
		{Case: Case{Name: "SRV of one instance only", Qname: "_dns._udp.web.", Qtype: dns.TypeSRV, Answer: []string{
			"_dns._udp.web. 5 IN SRV 1 1 53 web-1.app.weft."}}, extra: []string{"web-1.app.weft. 5 IN A 10.0.0.2"}},
		{Case: Case{Name: "SRV of an endpoint", Qname: "_HTTP._tcp.web-2.app.weft.", Qtype: dns.TypeSRV, Answer: []string{
			"_HTTP._tcp.web-2.app.weft. 5 IN SRV 1 1 9090 web-2.app.weft."}}, extra: []string{"web-2.app.weft. 5 IN A 10.0.0.3"}},
		{Case: Case{Name: "SRV without such a port", Qname: "_smtp._tcp.web.app.", Qtype: dns.TypeSRV, Rcode: dns.RcodeNameError, Ns: []string{soaApp}}},
		{Case: Case{Name: "SRV of the wrong protocol", Qname: "_http._udp.web.app.", Qtype: dns.TypeSRV, Rcode: dns.RcodeNameError, Ns: []string{soaApp}}},
		{Case: Case{Name: "SRV name, other type", Qname: "_http._tcp.web.app.", Ns: []string{soaApp}}},
		{Case: Case{Name: "above an SRV name (RFC 8020)", Qname: "_tcp.web.app.", Ns: []string{soaApp}}},
		{Case: Case{Name: "service, type SRV", Qname: "web.app.", Qtype: dns.TypeSRV, Ns: []string{soaApp}}},
		{Case: Case{Name: "PTR", Qname: "2.0.0.10.in-addr.arpa.", Qtype: dns.TypePTR, Answer: []string{"2.0.0.10.in-addr.arpa. 5 IN PTR web-1.app.weft."}}},
		{Case: Case{Name: "PTR, unused address", Qname: "99.0.0.10.in-addr.arpa.", Qtype: dns.TypePTR, Rcode: dns.RcodeNameError,
			Ns: []string{soa("99.0.0.10.in-addr.arpa.")}}},
		{Case: Case{Name: "PTR, foreign address", Internal: true, Qname: "2.0.9.10.in-addr.arpa.", Qtype: dns.TypePTR, Rcode: dns.RcodeRefused, Foreign: true}},
		{Case: Case{Name: "PTR name, other type", Qname: "2.0.0.10.in-addr.arpa.", Ns: []string{soa("2.0.0.10.in-addr.arpa.")}}},
		{Case: Case{Name: "no reverse name: leading zero", Internal: true, Qname: "02.0.0.10.in-addr.arpa.", Qtype: dns.TypePTR, Rcode: dns.RcodeRefused, Foreign: true}},
		{Case: Case{Name: "PTR IPv6", Network: "six", Qname: "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.IP6.arpa.", Qtype: dns.TypePTR, Answer: []string{
			"5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.IP6.arpa. 5 IN PTR v6-1.six.weft."}}},
		{Case: Case{Name: "AAAA", Network: "six", Qname: "web.six.weft.", Qtype: dns.TypeAAAA, Answer: []string{"web.six.weft. 5 IN AAAA 2001:db8:1::5"}}},
		{Case: Case{Name: "no A", Network: "six", Qname: "web.six.weft.", Ns: []string{soa("six.weft.")}}},
		{Case: Case{Name: "ANY (RFC 8482)", Qname: "web.app.", Qtype: dns.TypeANY, Answer: []string{hinfo("web.app.")}}},
		{Case: Case{Name: "ANY of nothing", Qname: "nope.app.", Qtype: dns.TypeANY, Rcode: dns.RcodeNameError, Ns: []string{soaApp}}},
		{Case: Case{Name: "ANY of an address", Qname: "2.0.0.10.in-addr.arpa.", Qtype: dns.TypeANY, Answer: []string{hinfo("2.0.0.10.in-addr.arpa.")}}},
		{Case: Case{Name: "SOA of the zone", Qname: "app.weft.", Qtype: dns.TypeSOA, Answer: []string{soaAppWeft}}},
		{Case: Case{Name: "SOA of the domain", Qname: "weft.", Qtype: dns.TypeSOA, Answer: []string{soa("weft.")}}},
		{Case: Case{Name: "no zone transfer", Qname: "app.weft.", Qtype: dns.TypeAXFR, Rcode: dns.RcodeRefused, Foreign: true}},
		{Case: Case{Name: "failing is left out", Qname: "sick.app.", Answer: []string{"sick.app. 5 IN A 10.0.0.21"}}},
		{Case: Case{Name: "all failing: all", Qname: "ill.app.", Answer: []string{"ill.app. 5 IN A 10.0.0.22", "ill.app. 5 IN A 10.0.0.24"}}},
		{Case: Case{Name: "failing by its own name", Qname: "sick-1.app.", Answer: []string{"sick-1.app. 5 IN A 10.0.0.20"}}},
		{Case: Case{Name: "draining has no name", Qname: "drained.app.", Rcode: dns.RcodeNameError, Ns: []string{soaApp}}},
		{Case: Case{Name: "draining has no service", Qname: "drained-service.app.", Rcode: dns.RcodeNameError, Ns: []string{soaApp}}},

		{Case: Case{Name: "dotted network", Network: "my.app", Qname: "web.my.app.weft.", Answer: []string{"web.my.app.weft. 5 IN A 10.9.0.2"}}},
		{Case: Case{Name: "dotted service on a dotted network", Network: "my.app", Qname: "a.b.my.app.", Answer: []string{"a.b.my.app. 5 IN A 10.9.0.2"}}},
		{Case: Case{Name: "dotted endpoint", Network: "my.app", Qname: "tasks.a.b.", Answer: []string{"tasks.a.b. 5 IN A 10.9.0.2"}}},

		{Case: Case{Name: "host: service on network", Network: host, Qname: "web.app.weft.", Answer: []string{"web.app.weft. 5 IN A 10.0.0.2", "web.app.weft. 5 IN A 10.0.0.3"}}},
		{Case: Case{Name: "host: network with a dot", Network: host, Qname: "web.my.app.weft.", Answer: []string{"web.my.app.weft. 5 IN A 10.9.0.2"}}},
		{Case: Case{Name: "host: endpoint with a dot", Network: host, Qname: "db.1.app.weft.", Answer: []string{"db.1.app.weft. 5 IN A 10.0.0.8"}}},
		{Case: Case{Name: "host: SRV", Network: host, Qname: "_http._tcp.web-1.app.weft.", Qtype: dns.TypeSRV, Answer: []string{
			"_http._tcp.web-1.app.weft. 5 IN SRV 1 1 8080 web-1.app.weft."}}, extra: []string{"web-1.app.weft. 5 IN A 10.0.0.2"}},
		{Case: Case{Name: "host: without network", Network: host, Qname: "web.weft.", Rcode: dns.RcodeNameError, Ns: []string{soa("weft.")}}},
		{Case: Case{Name: "host: unknown on network", Network: host, Qname: "nope.app.weft.", Rcode: dns.RcodeNameError, Ns: []string{soaAppWeft}}},
		{Case: Case{Name: "host: the network", Network: host, Qname: "app.weft.", Ns: []string{soaAppWeft}}},
		{Case: Case{Name: "host: a bare name is foreign", Network: host, Qname: "web.app.", Rcode: dns.RcodeRefused, Foreign: true}},
		{Case: Case{Name: "host: foreign", Network: host, Qname: "example.org.", Rcode: dns.RcodeRefused, Foreign: true}},
		{Case: Case{Name: "host: PTR", Network: host, Qname: "2.0.9.10.in-addr.arpa.", Qtype: dns.TypePTR, Answer: []string{"2.0.9.10.in-addr.arpa. 5 IN PTR web.x.my.app.weft."}}},
	} {
		t.Run(c.Name, func(t *testing.T) {
			s := newServer()
			s.SetView(build(town()))
			l := Listen{Network: c.Network, Forward: !c.Internal}
			switch c.Network {
			case "":
				l.Network = "app"
			case host:
				l, c.Internal = Listen{}, true
			}
			if c.Qtype == 0 {
				c.Qtype = dns.TypeA
			}
			for _, udp := range []bool{true, false} {
				for _, edns := range []bool{true, false} {
					q := query(c.Qname, c.Qtype)
					if edns {
						q.SetEdns0(1232, true)
					}
					m := s.respond(t.Context(), l, q, udp)
					c.check(t, m)
					var extra []dns.RR
					for _, rr := range m.Extra {
						if rr.Header().Rrtype != dns.TypeOPT {
							extra = append(extra, rr)
						}
					}
					section(t, "additional", c.extra, extra)
					if o := m.IsEdns0(); edns && (o == nil || !o.Do()) || !edns && o != nil {
						t.Errorf("EDNS %v is answered with %v", edns, o)
					}
				}
			}
		})
	}
}

// host stands for the host's listener in a Case.
const host = "(host)"

// One builder that follows changes makes the same view as one that starts anew.
func TestBuilderFollows(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	w := town()
	var b Builder
	dead := map[string]bool{}
	names := []string{"a", "b", "a.b", "c", "web", "x.c"}
	for step := range 400 {
		set := &w.Endpoints[r.IntN(2)]
		set.Endpoints = slices.Clone(set.Endpoints)
		set.Revision++
		switch n := len(set.Endpoints); {
		case r.IntN(10) == 0:
			dead = map[string]bool{"n2": r.IntN(2) == 0}
			set.Revision--
		case n > 0 && r.IntN(2) == 0:
			i := r.IntN(n)
			set.Endpoints = slices.Delete(set.Endpoints, i, i+1)
		default:
			e := overlay.Endpoint{ID: overlay.EndpointID(fmt.Sprint("e", step)), Name: fmt.Sprint(names[r.IntN(6)], "-", r.IntN(5)),
				Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + r.IntN(250))}), Services: []string{names[r.IntN(6)]},
				Health: []overlay.Health{"", overlay.HealthFailing, overlay.HealthDraining}[r.IntN(3)]}
			if r.IntN(3) == 0 {
				e.Aliases, e.Ports = []string{names[r.IntN(6)]}, []overlay.Port{{Name: "p", Port: uint16(1 + r.IntN(9)), Proto: "tcp"}}
			}
			set.Endpoints = append(set.Endpoints, e)
		}
		in := Input{Snapshot: w, Domain: "weft", Dead: dead}
		got, want := describe(b.Build(in)), describe(Build(in))
		if got != want {
			t.Fatalf("step %d: (-anew +followed):\n%s", step, cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")))
		}
	}
}

// describe prints a view's names.
func describe(v *View) string {
	var lines []string
	for name, z := range v.zones {
		for _, shard := range z.names {
			for rel, e := range shard {
				line := fmt.Sprintf("%s %s a %x %v aaaa %x srv", name, text([]byte(rel)), e.a.packed, e.a.groups, e.aaaa.packed)
				for _, s := range e.srv {
					line += fmt.Sprintf(" %x", s.packed)
				}
				lines = append(lines, line)
			}
		}
		for _, shard := range z.reverse {
			for a := range shard { // which of two endpoints with one address has the name is open
				lines = append(lines, name+" "+a.String())
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(append(lines, v.failing...), "\n")
}

func TestDeadNode(t *testing.T) {
	v := Build(Input{Snapshot: town(), Domain: "weft", Dead: map[string]bool{"n2": true}})
	s := newServer()
	s.SetView(v)
	m := s.respond(t.Context(), Listen{Network: "app"}, query("web.app.", dns.TypeA), true)
	section(t, "web", []string{"web.app. 5 IN A 10.0.0.2"}, m.Answer)
	m = s.respond(t.Context(), Listen{Network: "app"}, query("web-2.app.", dns.TypeA), true)
	if m.Rcode != dns.RcodeNameError {
		t.Errorf("a dead node's endpoint: %s", m)
	}
}

func TestFailing(t *testing.T) {
	if got := strings.Join(build(town()).Failing(), ","); got != "ill on app" {
		t.Errorf("failing: %s", got)
	}
}

func TestPreferLocal(t *testing.T) {
	s := newServer()
	s.SetView(Build(Input{Snapshot: town(), Domain: "weft", Self: "n2", PreferLocal: true}))
	for range 50 {
		m := s.respond(t.Context(), Listen{Network: "app"}, query("web.", dns.TypeA), true)
		if len(m.Answer) != 2 || m.Answer[0].(*dns.A).A.String() != "10.0.0.3" {
			t.Fatalf("the local instance is not first:\n%s", m)
		}
		m = s.respond(t.Context(), Listen{Network: "app"}, query("_http._tcp.web.", dns.TypeSRV), true)
		for _, rr := range m.Answer {
			if srv := rr.(*dns.SRV); (srv.Priority == 1) != (srv.Port == 9090 || srv.Port == 8080) {
				t.Errorf("priority: %s", srv)
			}
		}
	}
}

// TestHostile sends a million random and hostile packets: nothing crashes, nobody who is not a client gets more than the
// usual, and memory stays flat.
func TestHostile(t *testing.T) {
	s := newServer()
	s.SetView(build(town()))
	n := 1_000_000
	if testing.Short() || raceEnabled {
		n = 100_000
	}
	r := rand.New(rand.NewPCG(3, 4))
	var seeds [][]byte
	for _, m := range []*dns.Msg{query("web.app.weft.", dns.TypeA), query("_http._tcp.web.app.", dns.TypeSRV).SetEdns0(4096, true),
		query("2.0.0.10.in-addr.arpa.", dns.TypePTR), query("example.org.", dns.TypeANY)} {
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, wire)
	}
	l := Listen{Network: "app"}
	w := s.newWorker(&l)
	defer w.close()
	out := make([]byte, 0, maxAnswer)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	p := make([]byte, 0, maxRequest)
	for i := range n {
		p = append(p[:0], seeds[i%len(seeds)]...)
		switch r.IntN(6) {
		case 0: // noise
			p = p[:0]
			for range r.IntN(200) {
				p = append(p, byte(r.Uint32()))
			}
		case 1: // truncated
			p = p[:r.IntN(len(p))]
		case 2: // huge counts
			p[4+r.IntN(8)] = byte(r.Uint32())
		case 3: // compression loops
			at := headerLen + r.IntN(len(p)-headerLen)
			p = append(p[:at], 0xc0, byte(at), 0, 1, 0, 1)
		case 4: // answers sent as queries
			p[2] |= 0x80
		case 5: // a flipped bit or more
			for range 1 + r.IntN(4) {
				p[r.IntN(len(p))] ^= 1 << r.IntN(8)
			}
		}
		got, ask := w.answer(out, p, true)
		switch {
		case ask != nil:
			t.Fatalf("an internal network's question is passed on: %x", p)
		case len(p) >= 3 && p[2]&0x80 != 0 && got != nil:
			t.Fatalf("an answer is answered: %x", p)
		case len(got) > maxUDP:
			t.Fatalf("%d bytes for %x", len(got), p)
		case len(got) > 0 && got[3]&0xf != 0 && len(got) > len(p)+100:
			t.Fatalf("an error of %d bytes for %d: %x", len(got), len(p), p)
		}
	}
	if after := heap(); after > before+4<<20 {
		t.Errorf("memory grew from %d to %d bytes", before, after)
	}
}

func BenchmarkAnswer(b *testing.B) {
	s := New(Config{Log: quiet()})
	s.SetView(build(big(10_000)))
	l := Listen{Network: "blue"}
	w := s.newWorker(&l)
	defer w.close()
	var wires [][]byte
	for i := range 10_000 {
		wire, err := query(fmt.Sprintf("Svc-%d.blue.weft.", i), dns.TypeA).SetEdns0(1232, false).Pack()
		if err != nil {
			b.Fatal(err)
		}
		wires = append(wires, wire)
	}
	out := make([]byte, 0, maxAnswer)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if got, _ := w.answer(out, wires[i%len(wires)], true); len(got) < 40 {
			b.Fatal("no answer")
		}
	}
}

// BenchmarkChange is one endpoint that comes or goes among 10,000 on 100 nodes.
func BenchmarkChange(b *testing.B) {
	w := big(10_000)
	var builder Builder
	builder.Build(Input{Snapshot: w, Domain: "weft"})
	for i := 0; b.Loop(); i++ {
		set := &w.Endpoints[i%len(w.Endpoints)]
		set.Revision++
		set.Endpoints = slices.Clone(set.Endpoints)
		set.Endpoints[i%len(set.Endpoints)].Health = []overlay.Health{overlay.HealthFailing, overlay.HealthPassing}[i/len(w.Endpoints)%2]
		builder.Build(Input{Snapshot: w, Domain: "weft"})
	}
}

// big is n services of one instance each on 100 nodes.
func big(n int) *overlay.Snapshot {
	w := world()
	subnet := netip.MustParsePrefix("10.0.0.0/8")
	w.Networks = map[string]overlay.Network{"blue": {Name: "blue", ID: "b1", Subnets: []netip.Prefix{subnet}, Gateway: subnet.Addr().Next()}}
	w.Endpoints = nil
	for node := range 100 {
		name := fmt.Sprintf("m%d", node)
		w.Nodes[name] = overlay.Node{Name: name}
		set := overlay.EndpointSet{Node: name, Network: "blue", NetworkID: "b1", Revision: 1}
		for i := node; i < n; i += 100 {
			id := fmt.Sprintf("svc-%d-1", i)
			set.Endpoints = append(set.Endpoints, overlay.Endpoint{ID: overlay.EndpointID(id), Name: id,
				Address: netip.AddrFrom4([4]byte{10, byte(1 + i>>16), byte(i >> 8), byte(i)}), Services: []string{fmt.Sprintf("svc-%d", i)}})
		}
		w.Endpoints = append(w.Endpoints, set)
	}
	return w
}

func TestBigIsQuick(t *testing.T) {
	start := time.Now()
	build(big(10_000))
	t.Logf("a view of 10,000 services: %v", time.Since(start))
}
