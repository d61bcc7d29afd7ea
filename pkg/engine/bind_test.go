package engine

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"

	"golang.zx2c4.com/wireguard/conn"

	"weft/pkg/netns/netnstest"
)

// openBind opens a bind and collects what its IPv4 or IPv6 socket receives.
func openBind(t *testing.T, is6 bool) (*bind, conn.Endpoint, chan []byte) {
	t.Helper()
	b := newBind()
	fns, port, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	if len(fns) != 2 {
		t.Skip("needs IPv4 and IPv6")
	}
	got, recv, addr := make(chan []byte, 4096), fns[0], fmt.Sprintf("127.0.0.1:%d", port)
	if is6 {
		recv, addr = fns[1], fmt.Sprintf("[::1]:%d", port)
	}
	ep, err := b.ParseEndpoint(addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		packets, sizes, eps := make([][]byte, batch), make([]int, batch), make([]conn.Endpoint, batch)
		for i := range packets {
			packets[i] = make([]byte, 65535)
		}
		for {
			n, err := recv(packets, sizes, eps)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.Error(err)
			}
			for i := range n {
				if sizes[i] > 0 {
					got <- bytes.Clone(packets[i][:sizes[i]])
				}
			}
		}
	}()
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return b, ep, got
}

// TestBind sends batches of all shapes; each packet must arrive as it was, in order. The loopback keeps the batches
// together, so they arrive joined (UDP_GRO), with sizes that the receiver has guessed rightly and wrongly.
func TestBind(t *testing.T) {
	netnstest.Need(t)
	ip(t, "link set lo up")
	for _, is6 := range []bool{false, true} {
		t.Run(fmt.Sprint("IPv6 ", is6), func(t *testing.T) {
			b, ep, got := openBind(t, is6)
			r := rand.New(rand.NewPCG(1, 2))
			for round := range 400 {
				var want [][]byte
				for len(want) < 1+r.IntN(batch) {
					size, run := 1+r.IntN(1500), 1+r.IntN(70)
					if r.IntN(30) == 0 {
						size = 1 + r.IntN(60000)
						run = 1
					}
					for range min(run, batch-len(want)) {
						p := make([]byte, size)
						for i := range p {
							p[i] = byte(round + len(want) + i*i)
						}
						want = append(want, p)
					}
				}
				if err := b.Send(want, ep); err != nil {
					t.Fatal(err)
				}
				for i, p := range want {
					if g := <-got; !bytes.Equal(g, p) {
						t.Fatalf("round %d, packet %d of %d: %d bytes came as %d", round, i, len(want), len(p), len(g))
					}
				}
			}
		})
	}
}
