package dns

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"weft/pkg/overlay"
)

const (
	soaWeft     = "weft. 5 IN SOA ns.weft. hostmaster.weft. 1 60 60 60 5"
	soaBlue     = "blue. 5 IN SOA ns.blue. hostmaster.blue. 1 60 60 60 5"
	soaBlueWeft = "blue.weft. 5 IN SOA ns.blue.weft. hostmaster.blue.weft. 1 60 60 60 5"
)

func TestAnswers(t *testing.T) {
	for _, c := range []Case{
		{Name: "service", Qname: "web.", Answer: []string{"web. 5 IN A 10.0.0.2", "web. 5 IN A 10.0.0.3"}},
		{Name: "service on network", Qname: "web.blue.", Answer: []string{"web.blue. 5 IN A 10.0.0.2", "web.blue. 5 IN A 10.0.0.3"}},
		{Name: "service below domain", Qname: "db.weft.", Answer: []string{"db.weft. 5 IN A 10.0.0.4"}},
		{Name: "service on network below domain", Qname: "db.blue.weft.", Answer: []string{"db.blue.weft. 5 IN A 10.0.0.4"}},
		{Name: "tasks", Qname: "tasks.db.", Answer: []string{"tasks.db. 5 IN A 10.0.0.4"}},
		{Name: "tasks on network", Qname: "tasks.db.blue.", Answer: []string{"tasks.db.blue. 5 IN A 10.0.0.4"}},
		{Name: "tasks below domain", Qname: "tasks.db.blue.weft.", Answer: []string{"tasks.db.blue.weft. 5 IN A 10.0.0.4"}},
		{Name: "endpoint", Qname: "web-2.", Answer: []string{"web-2. 5 IN A 10.0.0.3"}},
		{Name: "endpoint on network", Qname: "web-1.blue.", Answer: []string{"web-1.blue. 5 IN A 10.0.0.2"}},
		{Name: "endpoint with a dot", Qname: "db.1.", Answer: []string{"db.1. 5 IN A 10.0.0.4"}},
		{Name: "endpoint with a dot, qualified", Qname: "db.1.blue.weft.", Answer: []string{"db.1.blue.weft. 5 IN A 10.0.0.4"}},
		{Name: "alias", Qname: "api.example.org.", Answer: []string{"api.example.org. 5 IN A 10.0.0.4"}},
		{Name: "case is kept, not compared", Qname: "WeB-1.bLuE.WEFT.", Answer: []string{"WeB-1.bLuE.WEFT. 5 IN A 10.0.0.2"}},
		{Name: "other network", Network: "green", Qname: "web.", Answer: []string{"web. 5 IN A 10.1.0.2"}},
		{Name: "node that left", Qname: "web-3.blue.", Rcode: dns.RcodeNameError, Ns: []string{soaBlue}},
		{Name: "address outside the subnet", Qname: "outside.blue.", Rcode: dns.RcodeNameError, Ns: []string{soaBlue}},
		{Name: "address of the gateway", Qname: "gw.blue.", Rcode: dns.RcodeNameError, Ns: []string{soaBlue}},
		{Name: "unknown on network", Qname: "nope.blue.", Rcode: dns.RcodeNameError, Ns: []string{soaBlue}},
		{Name: "unknown below domain", Qname: "nope.weft.", Rcode: dns.RcodeNameError, Ns: []string{soaWeft}},
		{Name: "unknown below both", Qname: "nope.blue.weft.", Rcode: dns.RcodeNameError, Ns: []string{soaBlueWeft}},
		{Name: "other network's name below domain", Qname: "web.green.weft.", Rcode: dns.RcodeNameError, Ns: []string{soaWeft}},
		{Name: "no AAAA", Qname: "web.blue.", Qtype: dns.TypeAAAA, Ns: []string{soaBlue}},
		{Name: "no AAAA of a bare name", Qname: "db.", Qtype: dns.TypeAAAA,
			Ns: []string{"db. 5 IN SOA ns.db. hostmaster.db. 1 60 60 60 5"}},
		{Name: "no MX", Qname: "web.weft.", Qtype: dns.TypeMX, Ns: []string{soaWeft}},
		{Name: "the domain exists", Qname: "weft.", Ns: []string{soaWeft}},
		{Name: "the network exists", Qname: "blue.", Ns: []string{soaBlue}},
		{Name: "the network exists below the domain", Qname: "blue.weft.", Ns: []string{soaBlueWeft}},
		{Name: "a name above others exists", Qname: "1.blue.", Ns: []string{soaBlue}},
		{Name: "what is above an alias stays foreign", Internal: true, Qname: "example.org.", Rcode: dns.RcodeRefused, Foreign: true},
		{Name: "first label alone", Qname: "tasks.blue.", Rcode: dns.RcodeNameError, Ns: []string{soaBlue}},
		{Name: "foreign", Internal: true, Qname: "www.example.net.", Rcode: dns.RcodeRefused, Foreign: true},
		{Name: "foreign root", Internal: true, Qname: ".", Qtype: dns.TypeNS, Rcode: dns.RcodeRefused, Foreign: true},
		{Name: "other network's name", Internal: true, Qname: "web.green.", Rcode: dns.RcodeRefused, Foreign: true},
		{Name: "an escaped dot is not a dot", Internal: true, Qname: `web\.blue.`, Rcode: dns.RcodeRefused, Foreign: true},
		{Name: "network nobody knows", Network: "red", Qname: "web.red.", Rcode: dns.RcodeNameError,
			Ns: []string{"red. 5 IN SOA ns.red. hostmaster.red. 1 60 60 60 5"}},
	} {
		t.Run(c.Name, func(t *testing.T) {
			s := newServer()
			if c.Network == "" {
				c.Network = "blue"
			}
			if c.Qtype == 0 {
				c.Qtype = dns.TypeA
			}
			for _, udp := range []bool{true, false} {
				q := query(c.Qname, c.Qtype)
				m := s.respond(t.Context(), Listen{Network: c.Network, Forward: !c.Internal}, q, udp)
				c.check(t, m)
				if m.Id != q.Id || m.Truncated || len(m.Question) != 1 || m.Question[0] != q.Question[0] {
					t.Errorf("not an answer to the question:\n%s", m)
				}
			}
		})
	}
}

// The longest name wins: a name that another is a part of does not hide it.
func TestLongestMatch(t *testing.T) {
	w := world()
	w.Endpoints[0].Endpoints = append(w.Endpoints[0].Endpoints,
		overlay.Endpoint{ID: "x1", Name: "web.blue", Address: netip.MustParseAddr("10.0.0.20")},
		overlay.Endpoint{ID: "x2", Name: "x.db.blue", Address: netip.MustParseAddr("10.0.0.21")})
	s := newServer()
	s.SetView(build(w))
	for name, want := range map[string]string{
		"web.blue.":            "10.0.0.20", // as it is, before "web" below blue
		"web.blue.blue.":       "10.0.0.20",
		"x.db.blue.":           "10.0.0.21",
		"db.blue.":             "10.0.0.4", // not hidden by being above x.db.blue
		"web-1.blue.weft.":     "10.0.0.2",
		"x.db.blue.blue.weft.": "10.0.0.21",
	} {
		m := s.respond(t.Context(), Listen{Network: "blue"}, query(name, dns.TypeA), true)
		section(t, name, []string{name + " 5 IN A " + want}, m.Answer)
	}
}

func TestUnfit(t *testing.T) {
	edns := func(version uint8) *dns.Msg {
		q := query("db.blue.", dns.TypeA).SetEdns0(4096, false)
		q.IsEdns0().SetVersion(version)
		return q
	}
	two := query("db.", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	notify := query("db.", dns.TypeSOA)
	notify.Opcode = dns.OpcodeNotify
	chaos := query("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	for name, tc := range map[string]struct {
		q    *dns.Msg
		want int
	}{
		"no question":   {new(dns.Msg), dns.RcodeFormatError},
		"two questions": {two, dns.RcodeFormatError},
		"notify":        {notify, dns.RcodeNotImplemented},
		"chaos":         {chaos, dns.RcodeRefused},
		"EDNS 0":        {edns(0), dns.RcodeSuccess},
		"EDNS 1":        {edns(1), dns.RcodeBadVers},
	} {
		t.Run(name, func(t *testing.T) {
			m := newServer().respond(t.Context(), Listen{Network: "blue", Forward: true}, tc.q, true)
			wire, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			var got dns.Msg
			if err := got.Unpack(wire); err != nil || got.Rcode != tc.want {
				t.Errorf("rcode is %s, want %s (%v)", dns.RcodeToString[got.Rcode], dns.RcodeToString[tc.want], err)
			}
			if (tc.q.IsEdns0() != nil) != (got.IsEdns0() != nil) {
				t.Error("EDNS is answered exactly when it was spoken (RFC 6891 section 6.1.1)")
			}
		})
	}
}

// crowd is network blue with n endpoints of one service.
func crowd(n int) *overlay.Snapshot {
	w := world()
	w.Endpoints = w.Endpoints[:1]
	w.Endpoints[0].Endpoints = nil
	for i := range n {
		w.Endpoints[0].Endpoints = append(w.Endpoints[0].Endpoints, overlay.Endpoint{
			ID: overlay.EndpointID(fmt.Sprintf("e%d", i)), Name: fmt.Sprintf("e%d", i), Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 2)}), Services: []string{"web"}})
	}
	return w
}

func TestTruncation(t *testing.T) {
	s := newServer()
	s.SetView(build(crowd(250)))
	for name, tc := range map[string]struct {
		edns  uint16
		udp   bool
		limit int
		all   bool
	}{
		"plain":          {0, true, 512, false},
		"small EDNS":     {100, true, 512, false}, // RFC 6891 section 6.2.5: below 512 means 512
		"EDNS":           {1000, true, 1000, false},
		"more than fits": {65535, true, 1232, false}, // such a datagram could not be sent
		"TCP":            {0, false, 65535, true},
		"TCP with EDNS":  {1232, false, 65535, true},
	} {
		t.Run(name, func(t *testing.T) {
			q := query("web.blue.", dns.TypeA)
			if tc.edns != 0 {
				q.SetEdns0(tc.edns, false)
			}
			m := s.respond(t.Context(), Listen{Network: "blue"}, q, tc.udp)
			wire, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if len(wire) > tc.limit || m.Truncated == tc.all || (len(m.Answer) == 250) != tc.all || len(m.Answer) < 10 {
				t.Errorf("%d records in %d bytes (limit %d), truncated %v", len(m.Answer), len(wire), tc.limit, m.Truncated)
			}
			if (m.IsEdns0() != nil) != (tc.edns != 0) {
				t.Error("EDNS is answered exactly when it was spoken")
			}
		})
	}
}

func TestShuffled(t *testing.T) {
	s := newServer()
	s.SetView(build(crowd(4)))
	first := map[string]int{}
	for range 400 {
		m := s.respond(context.Background(), Listen{Network: "blue"}, query("web.", dns.TypeA), true)
		first[m.Answer[0].String()]++
	}
	for rr, n := range first {
		if n < 50 { // of about 100; that it is an accident has a probability below 1e-8
			t.Errorf("%s came first only %d times of 400", rr, n)
		}
	}
	if len(first) != 4 {
		t.Errorf("only %d of 4 addresses came first", len(first))
	}
}
