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
