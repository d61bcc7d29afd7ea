package dns

import (
	"context"
	"testing"

	"github.com/miekg/dns"
)

// FuzzRespond: whatever message a server would hand on, it gets an answer that packs, fits, and is to that message.
func FuzzRespond(f *testing.F) {
	s := newServer()
	crowded := newServer()
	crowded.SetView(Build(crowd(250)))
	add := func(m *dns.Msg) {
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, true, true)
		f.Add(wire, false, false)
	}
	for _, name := range []string{".", "web.", "tasks.web.blue.weft.", "example.org.", `a\.b.blue.`, `\000.weft.`} {
		add(query(name, dns.TypeA))
		add(query(name, dns.TypeANY).SetEdns0(512, true))
	}
	add(new(dns.Msg).SetNotify("blue."))
	add(new(dns.Msg).SetUpdate("blue."))
	add(query("web.", dns.TypeA).SetTsig("key.", dns.HmacSHA256, 300, 0))
	f.Fuzz(func(t *testing.T, wire []byte, udp, forward bool) {
		q := new(dns.Msg)
		if q.Unpack(wire) != nil {
			return
		}
		for _, s := range []*Server{s, crowded} { // no upstreams: what is forwarded fails
			m := s.respond(context.Background(), Listen{Network: "blue", Forward: forward}, q, udp)
			if m == nil {
				t.Fatal("no answer")
			}
			out, err := m.Pack()
			if err != nil {
				t.Fatalf("answer does not pack: %v\n%s", err, m)
			}
			if udp && len(out) > maxUDP || len(out) > dns.MaxMsgSize {
				t.Errorf("answer has %d bytes", len(out))
			}
			if m.Id != q.Id || !m.Response {
				t.Errorf("not an answer to the query:\n%s", m)
			}
			if again := new(dns.Msg); again.Unpack(out) != nil {
				t.Errorf("answer cannot be read:\n%s", m)
			}
		}
	})
}

// FuzzRelay: whatever an upstream sends, the asker gets something that packs and fits.
func FuzzRelay(f *testing.F) {
	q := query("example.org.", dns.TypeA)
	for _, m := range []*dns.Msg{says(0, orgA)(q, true), says(dns.RcodeNameError)(q, true), says(0, many("example.org.", 60)...)(q, false),
		says(dns.RcodeSuccess, orgA)(q, true).SetEdns0(4096, true)} {
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, true, true)
		f.Add(wire, true, false)
		f.Add(wire, false, true)
	}
	f.Fuzz(func(t *testing.T, wire []byte, udp, edns bool) {
		m := new(dns.Msg)
		if m.Unpack(wire) != nil {
			return
		}
		q := query("example.org.", dns.TypeA)
		if edns {
			q.SetEdns0(1232, false)
		}
		out, err := relay(m, q, udp).Pack()
		if err != nil {
			t.Fatalf("does not pack: %v", err)
		}
		if udp && (len(out) > maxUDP || !edns && len(out) > dns.MinMsgSize) {
			t.Errorf("%d bytes", len(out))
		}
	})
}
