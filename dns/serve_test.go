package dns

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// serving starts Serve and returns where it answers and what waits for its end.
func serving(t *testing.T, ctx context.Context, s *Server, l Listen) (addr string, wait func() error) {
	t.Helper()
	pc, ln := sockets(t)
	l.Packets, l.Stream = []net.PacketConn{pc}, ln
	end := make(chan error, 1)
	go func() { end <- s.Serve(ctx, l) }()
	return pc.LocalAddr().String(), func() error {
		select {
		case err := <-end:
			return err
		case <-time.After(10 * time.Second):
			t.Fatal("Serve does not end")
			return nil
		}
	}
}

func TestServe(t *testing.T) {
	s := newServer()
	ctx, cancel := context.WithCancel(t.Context())
	addr, wait := serving(t, ctx, s, Listen{Network: "blue"})
	for _, proto := range []string{"udp", "tcp"} {
		c := dns.Client{Net: proto}
		m, _, err := c.Exchange(query("web.blue.", dns.TypeA), addr)
		if err != nil {
			t.Fatalf("%s: %v", proto, err)
		}
		section(t, proto, []string{"web.blue. 5 IN A 10.0.0.2", "web.blue. 5 IN A 10.0.0.3"}, m.Answer)
	}
	// A client that keeps its connection open does not hold up the end.
	idle, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	cancel()
	if err := wait(); err != nil {
		t.Errorf("Serve = %v", err)
	}
	if pc, err := net.ListenPacket("udp", addr); err != nil {
		t.Errorf("the UDP socket is still open: %v", err)
	} else {
		_ = pc.Close()
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("the TCP socket is still open")
	}
}

// The bigger answer comes over TCP after a truncated one over UDP, as a resolver asks it.
func TestServeTruncated(t *testing.T) {
	s := newServer()
	s.SetView(build(crowd(200)))
	ctx, cancel := context.WithCancel(t.Context())
	addr, wait := serving(t, ctx, s, Listen{Network: "blue"})
	m, _, err := new(dns.Client).Exchange(query("web.", dns.TypeA), addr)
	if err != nil || !m.Truncated || len(m.Answer) == 0 {
		t.Errorf("over UDP: %v, %v", err, m)
	}
	m, _, err = (&dns.Client{Net: "tcp"}).Exchange(query("web.", dns.TypeA), addr)
	if err != nil || m.Truncated || len(m.Answer) != 200 {
		t.Errorf("over TCP: %v, %d records", err, len(m.Answer))
	}
	cancel()
	if err := wait(); err != nil {
		t.Error(err)
	}
}

func TestServeEndedContext(t *testing.T) {
	for range 50 { // the end may overtake the start anywhere
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, wait := serving(t, ctx, newServer(), Listen{Network: "blue"})
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		_, wait = serving(t, ctx, newServer(), Listen{Network: "blue"})
		cancel()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
	}
}

// One socket that fails ends the other: half a name server would go unnoticed.
func TestServeSocketFails(t *testing.T) {
	for _, which := range []string{"packet", "stream"} {
		t.Run(which, func(t *testing.T) {
			l := Listen{Network: "blue"}
			pc, ln := sockets(t)
			l.Packets, l.Stream = []net.PacketConn{pc}, ln
			var err error
			if which == "packet" {
				err = pc.Close()
			} else {
				err = l.Stream.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			end := make(chan error, 1)
			go func() { end <- newServer().Serve(t.Context(), l) }()
			select {
			case err := <-end:
				if err == nil || !strings.Contains(err.Error(), "network blue") {
					t.Errorf("Serve = %v", err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("Serve goes on with one socket")
			}
		})
	}
}

// A listener ends at once although a query waits for a silent upstream.
func TestServeEndsDuringForward(t *testing.T) {
	asked := make(chan struct{}, 10)
	u := startUpstream(t, false, func(*dns.Msg, bool) *dns.Msg { asked <- struct{}{}; return nil })
	ctx, cancel := context.WithCancel(t.Context())
	addr, wait := serving(t, ctx, newServer(u.addr), Listen{Network: "blue", Forward: true})
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wire, err := query("example.org.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(wire); err != nil {
		t.Fatal(err)
	}
	<-asked
	begin := time.Now()
	cancel()
	if err := wait(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %s to end", took)
	}
}

// Queries see one view or the other, never a mixture.
func TestSetViewWhileServing(t *testing.T) {
	s := newServer()
	few, lots := build(crowd(3)), build(crowd(20))
	s.SetView(few)
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				s.SetView([]*View{few, lots}[i%2])
			}
		}
	})
	var askers sync.WaitGroup
	for range 4 {
		askers.Go(func() {
			for range 500 {
				m := s.respond(t.Context(), Listen{Network: "blue"}, query("web.blue.weft.", dns.TypeA), false)
				if n := len(m.Answer); n != 3 && n != 20 {
					t.Errorf("%d addresses are of no view", n)
				}
			}
		})
	}
	askers.Wait()
	close(done)
	wg.Wait()
}

// TestPipelining: over one TCP connection many questions are asked at once, and one that waits for an upstream holds up
// no other (RFC 7766 section 6.2.1.1).
func TestPipelining(t *testing.T) {
	u := startUpstream(t, false, func(q *dns.Msg, udp bool) *dns.Msg {
		time.Sleep(300 * time.Millisecond)
		return says(0, orgA)(q, udp)
	})
	ctx, cancel := context.WithCancel(t.Context())
	addr, wait := serving(t, ctx, newServer(u.addr), Listen{Network: "blue", Forward: true})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn := &dns.Conn{Conn: c}
	for i, name := range []string{"example.org.", "db.blue.", "nope.blue.", "db."} {
		q := query(name, dns.TypeA)
		q.Id = uint16(i)
		if err := conn.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
	}
	var order []uint16
	for range 4 {
		m, err := conn.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, m.Id)
	}
	if order[3] != 0 || order[0] != 1 || order[1] != 2 || order[2] != 3 {
		t.Errorf("answers came in the order %v, want the forwarded one last", order)
	}
	cancel()
	if err := wait(); err != nil {
		t.Error(err)
	}
}

// TestManySockets: askers spread over the sockets of one address, in bursts that fill batches, and each gets its own
// answer.
func TestManySockets(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	packets, stream, err := Open(ctx, "127.0.0.1:0", 4)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer()
	end := make(chan error, 1)
	go func() { end <- s.Serve(ctx, Listen{Network: "blue", Packets: packets, Stream: stream}) }()
	var wg sync.WaitGroup
	for asker := range 16 {
		wg.Go(func() {
			c, err := net.Dial("udp", packets[0].LocalAddr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			const burst = 10
			seen := map[uint16]bool{}
			buf := make([]byte, 512)
			for range 10 {
				for range burst {
					q := query("web.blue.", dns.TypeA)
					q.Id = uint16(asker*1000 + len(seen) + 1)
					seen[q.Id] = false
					wire, err := q.Pack()
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := c.Write(wire); err != nil {
						t.Error(err)
					}
				}
				for range burst {
					if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
						t.Error(err)
					}
					n, err := c.Read(buf)
					var m dns.Msg
					if err != nil || m.Unpack(buf[:n]) != nil || len(m.Answer) != 2 {
						t.Errorf("asker %d: %v, %s", asker, err, &m)
						return
					}
					if had, asked := seen[m.Id]; had || !asked {
						t.Errorf("asker %d: answer %d, which it did not ask for or has already", asker, m.Id)
					}
					seen[m.Id] = true
				}
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.Queries != 1600 || st.Own != 1600 {
		t.Errorf("%+v", st)
	}
	cancel()
	if err := <-end; err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st.Queries != 1600 {
		t.Errorf("after the end: %+v", st)
	}
}
