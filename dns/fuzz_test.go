package dns

import (
	"context"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzRespond: whatever message a server would hand on, it gets an answer that packs, fits, and is to that message.
func FuzzRespond(f *testing.F) {
	s := newServer()
	crowded := newServer()
	crowded.SetView(build(crowd(250)))
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
		if len(wire) > maxRequest {
			return
		}
		for _, s := range []*Server{s, crowded} { // no upstreams: what is forwarded fails
			for _, l := range []Listen{{Network: "blue", Forward: forward}, {}} {
				out := s.respondWire(context.Background(), l, wire, udp)
				if request := len(wire) >= headerLen && wire[2]&0x80 == 0; request != (out != nil) {
					t.Fatalf("request %v, answer %x", request, out)
				}
				if out == nil {
					continue
				}
				if udp && len(out) > maxUDP || len(out) > maxTCP {
					t.Errorf("answer has %d bytes", len(out))
				}
				if out[0] != wire[0] || out[1] != wire[1] || out[2]&0x80 == 0 {
					t.Errorf("not an answer to the query: %x", out)
				}
				if m := new(dns.Msg); m.Unpack(out) != nil {
					t.Errorf("answer cannot be read: %x to %x", out, wire)
				}
			}
		}
	})
}

// FuzzParse: what the parser by hand takes, the library takes too, and both read the same. (The library takes more: names
// with pointers, and records it does not look into.)
func FuzzParse(f *testing.F) {
	for _, m := range []*dns.Msg{query("web.Blue.", dns.TypeA), query(".", dns.TypeNS), query("a.", dns.TypeA).SetEdns0(1000, true)} {
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		var q question
		if !q.parse(wire) || q.rcode != rcodeSuccess {
			return
		}
		var m dns.Msg
		if err := m.Unpack(wire); err != nil {
			return // RDATA that it knows and we pass over
		}
		want, ok := wireName(strings.ToLower(m.Question[0].Name))
		if ok && !strings.Contains(m.Question[0].Name, `\`) && string(want) != string(q.name) {
			t.Errorf("name %q, want %q", q.name, want)
		}
		if m.Question[0].Qtype != q.qtype || m.Question[0].Qclass != q.qclass || (m.IsEdns0() != nil) != q.edns {
			t.Errorf("read %d %d EDNS %v, want %s", q.qtype, q.qclass, q.edns, &m)
		}
		if o := m.IsEdns0(); o != nil && (int(o.UDPSize()) != q.size || o.Do() != q.do) {
			t.Errorf("size %d DO %v, want %s", q.size, q.do, o)
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
		q := query("example.org.", dns.TypeA)
		if edns {
			q.SetEdns0(1232, false)
		}
		asked, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		var p question
		p.parse(asked)
		if len(wire) > headerLen {
			copy(wire, asked[:2])
		}
		if !answers(wire, asked, &p) {
			return
		}
		e, _, ok := digest(wire, &p)
		if !ok {
			return
		}
		for _, stale := range []bool{false, true} {
			out := e.write(nil, asked, &p, 3e9, stale, udp)
			if udp && (len(out) > maxUDP || !edns && len(out) > minUDP) {
				t.Errorf("%d bytes", len(out))
			}
			var q question
			if out[2] &= 0x7f; !q.parse(out) || q.edns != edns {
				t.Errorf("no message: %x", out)
			}
		}
	})
}
