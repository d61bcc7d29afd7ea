package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/keys"
	"weft/pkg/engine/control"
	"weft/pkg/netns"
	"weft/pkg/netns/netnstest"
	"weft/pkg/overlay"
)

const (
	pairVNI  = 8388700
	pairPort = 4789
)

// side is one node of a pair: an engine, whose WireGuard socket is on the loopback of the test's namespace, and a network
// namespace with the VXLAN device, which also has the "container's" address.
type side struct {
	i       int
	device  string
	transit string
	net     string
	plain   bool // VXLAN is the kernel's
	key     keys.PrivateKey
	vtep    netip.Addr
	control *control.Client
}

func (s *side) mac() overlay.MAC { return overlay.MAC{2, 0x77, 0, 0, 0, byte(s.i)} }
func (s *side) addr(v int) string {
	return map[int]string{4: "10.7.0.", 6: "fd00:7::"}[v] + strconv.Itoa(s.i)
}

func ip(t testing.TB, cmds ...string) {
	t.Helper()
	for _, c := range cmds {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", c, err, out)
		}
	}
}

// pair makes two nodes that know each other; plain says which of them let the kernel do VXLAN.
func pair(t *testing.T, plain ...bool) [2]*side {
	t.Helper()
	netnstest.Need(t)
	ip(t, "link set lo up")
	var sides [2]*side
	for i := range sides {
		k, err := keys.NewPrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		s := &side{i: i + 1, device: "weftwg" + strconv.Itoa(i), transit: fmt.Sprint("t", i), net: fmt.Sprint("n", i), plain: plain[i], key: k,
			vtep: netip.AddrFrom4([4]byte{100, 64, 7, byte(i + 1)})}
		s.control = control.NewClient(s.device)
		sides[i] = s
	}
	for i, s := range sides {
		s.up(t, sides[1-i])
	}
	return sides
}

func (s *side) up(t *testing.T, peer *side) {
	for _, ns := range []string{s.transit, s.net} {
		if err := netns.Create(ns); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	cfg := Config{Device: s.device, NetNS: s.transit, MTU: 1420, Plain: s.plain, Log: slog.New(slog.DiscardHandler)}
	go func() { ended <- Run(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for _, ns := range []string{s.transit, s.net} {
			if err := netns.Delete(ns); err != nil {
				t.Error(err)
			}
		}
	})
	private, public := s.key.Reveal(), peer.key.Public()
	request := fmt.Sprintf("set=1\nprivate_key=%x\nlisten_port=%d\npublic_key=%x\nendpoint=127.0.0.1:%d\nallowed_ip=%s/32\n\n", private[:],
		50000+s.i, public[:], 50000+peer.i, peer.vtep)
	eventually(t, func() error {
		answer, err := askDevice(s.device, request)
		if err == nil && answer != "errno=0\n\n" {
			err = errors.New(answer)
		}
		return err
	})
	ip(t, "-n "+s.transit+" link set lo up", "-n "+s.transit+" addr add "+s.vtep.String()+"/32 dev lo", "-n "+s.transit+" link set "+s.device+" up",
		"-n "+s.transit+" route add 100.64.7.0/24 dev "+s.device+" src "+s.vtep.String())
	s.network(t, peer)
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for range 300 {
		if err = f(); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(err)
}

func (s *side) tap() *control.TAP {
	return &control.TAP{NetNS: s.net, Name: "vxlan0", VNI: pairVNI, Local: s.vtep, Port: pairPort, MTU: 1370}
}

func (s *side) order(t testing.TB, op control.Op, entries ...control.Entry) control.Response {
	t.Helper()
	r, err := s.control.Do(control.Request{Op: op, TAP: s.tap(), Entries: entries})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *side) network(t *testing.T, peer *side) {
	if s.plain {
		ip(t, fmt.Sprintf("-n %s link add vxlan0 netns %s mtu 1370 type vxlan id %d dstport %d local %s nolearning", s.transit, s.net, pairVNI, pairPort, s.vtep))
	} else {
		s.order(t, control.OpAddTAP)
		s.order(t, control.OpSetFDB, control.Entry{MAC: peer.mac(), VTEP: peer.vtep})
	}
	ip(t, "-n "+s.net+" link set vxlan0 address "+s.mac().String(), "-n "+s.net+" link set vxlan0 up", "-n "+s.net+" link set lo up",
		"-n "+s.net+" addr add "+s.addr(4)+"/24 dev vxlan0", "-n "+s.net+" addr add "+s.addr(6)+"/64 dev vxlan0 nodad",
		"-n "+s.net+" neigh add "+peer.addr(4)+" lladdr "+peer.mac().String()+" dev vxlan0",
		"-n "+s.net+" neigh add "+peer.addr(6)+" lladdr "+peer.mac().String()+" dev vxlan0")
	if s.plain {
		if out, err := exec.Command("bridge", "-n", s.net, "fdb", "add", peer.mac().String(), "dev", "vxlan0", "self", "dst", peer.vtep.String()).CombinedOutput(); err != nil {
			t.Fatalf("bridge fdb: %v: %s", err, out)
		}
	}
}

func askDevice(device, request string) (string, error) {
	c, err := net.Dial("unix", socketPath(device))
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		return "", err
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

func (s *side) peer(t testing.TB, of *side) control.Peer {
	t.Helper()
	for _, n := range s.order(t, control.OpState).Networks {
		for _, p := range n.Peers {
			if p.VTEP == of.vtep {
				return p
			}
		}
	}
	return control.Peer{}
}

// TestPair sends streams and datagrams of all sizes, over IPv4 and IPv6, between two engines, and between an engine and
// a node where the kernel does VXLAN over a plain wireguard-go TUN. Every byte is compared.
func TestPair(t *testing.T) {
	for _, tt := range []struct {
		name  string
		plain []bool
	}{{"engines", []bool{false, false}}, {"engine to kernel VXLAN", []bool{false, true}}, {"kernel VXLAN to engine", []bool{true, false}}} {
		t.Run(tt.name, func(t *testing.T) {
			sides := pair(t, tt.plain...)
			for _, v := range []int{4, 6} {
				t.Run(fmt.Sprint("IPv", v), func(t *testing.T) {
					exchange(t, sides[0], sides[1], v)
					datagrams(t, sides[0], sides[1], v)
				})
			}
			for i, s := range sides {
				if s.plain {
					continue
				}
				p := s.peer(t, sides[1-i])
				if p.Drops != nil || p.TxPackets == 0 || p.RxPackets == 0 {
					t.Errorf("counters: %+v", p)
				}
				if !sides[1-i].plain && (p.TxPackets < 5*p.TxFrames || p.RxPackets < 3*p.RxFrames) {
					t.Errorf("hardly anything was cut and joined: %+v", p)
				}
			}
		})
	}
}

// listenIn and dialIn open sockets in a namespace; they stay there.
func listenIn(t testing.TB, ns, addr string) (l net.Listener) {
	t.Helper()
	err := netns.Do(ns, func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dialIn(t testing.TB, ns, network, addr string) (c net.Conn) {
	t.Helper()
	err := netns.Do(ns, func() (err error) {
		c, err = net.DialTimeout(network, addr, 10*time.Second)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// exchange sends random data both ways at once, over several connections, and compares hashes.
func exchange(t *testing.T, a, b *side, v int) {
	const size, streams = 8 << 20, 3
	l := listenIn(t, b.net, net.JoinHostPort(b.addr(v), "7000"))
	defer l.Close()
	transfer := func(c net.Conn, seed uint64) (sent, got [32]byte, err error) {
		var wg sync.WaitGroup
		out, in := sha256.New(), sha256.New()
		var sendErr error
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			chunk := make([]byte, 100_000)
			for left := size; left > 0 && sendErr == nil; {
				n := min(left, 1+r.IntN(len(chunk)))
				for i := 0; i+8 <= n; i += 8 {
					chunk[i] = byte(r.Uint32())
				}
				out.Write(chunk[:n])
				_, sendErr = c.Write(chunk[:n])
				left -= n
			}
		})
		_, err = io.CopyN(in, c, size)
		wg.Wait()
		return [32]byte(out.Sum(nil)), [32]byte(in.Sum(nil)), errors.Join(err, sendErr)
	}
	type result struct {
		sent, got [32]byte
		err       error
	}
	for i := range streams {
		far := make(chan result, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				far <- result{err: err}
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(60 * time.Second))
			s, g, err := transfer(c, uint64(2*i))
			far <- result{s, g, err}
		}()
		c := dialIn(t, a.net, "tcp", l.Addr().String())
		_ = c.SetDeadline(time.Now().Add(60 * time.Second))
		sent, got, err := transfer(c, uint64(2*i+1))
		c.Close()
		r := <-far
		if err != nil || r.err != nil {
			t.Fatalf("stream %d: %v, %v", i, err, r.err)
		}
		if sent != r.got || got != r.sent {
			t.Fatalf("stream %d: data arrived changed", i)
		}
	}
}

// datagrams echoes datagrams of many sizes, some larger than the MTU.
func datagrams(t *testing.T, a, b *side, v int) {
	var server net.PacketConn
	err := netns.Do(b.net, func() (err error) {
		server, err = net.ListenPacket("udp", net.JoinHostPort(b.addr(v), "7001"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(buf[:n], from)
		}
	}()
	defer func() { server.Close(); <-done }()
	c := dialIn(t, a.net, "udp", server.LocalAddr().String())
	defer c.Close()
	buf := make([]byte, 65536)
	for n := 1; n < 9000; n += 1 + n/7 {
		want := bytes.Repeat([]byte{byte(n), byte(n >> 8), 7}, n/3+1)[:n]
		eventually(t, func() error { // under load one may be lost
			_ = c.SetDeadline(time.Now().Add(time.Second))
			if _, err := c.Write(want); err != nil {
				return err
			}
			got, err := c.Read(buf)
			if err == nil && !bytes.Equal(buf[:got], want) {
				err = fmt.Errorf("datagram of %d bytes came back as %d others", n, got)
			}
			return err
		})
	}
}

// TestFence: frames from a MAC that is not behind the sender's VTEP, and from a VTEP that has nothing on the network, are
// counted and dropped; and so are frames to nobody.
func TestFence(t *testing.T) {
	sides := pair(t, false, false)
	a, b := sides[0], sides[1]
	reach := func() bool {
		c := dialIn(t, a.net, "udp", net.JoinHostPort(b.addr(4), "7002"))
		defer c.Close()
		for range 5 {
			_, _ = c.Write([]byte("x")) // the answer is an ICMP error
			_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); err != nil && strings.Contains(err.Error(), "refused") {
				return true
			}
		}
		return false
	}
	other := overlay.MAC{2, 0x77, 0, 0, 0, 99}
	stranger := netip.AddrFrom4([4]byte{100, 64, 7, 9})
	if !reach() {
		t.Fatal("no traffic before the fence is closed")
	}
	b.order(t, control.OpSetFDB, control.Entry{MAC: other, VTEP: a.vtep})
	b.order(t, control.OpSetFDB, control.Entry{MAC: a.mac(), VTEP: stranger})
	if reach() || b.peer(t, a).Drops["foreign_mac"] == 0 {
		t.Errorf("source MAC of another VTEP: %+v", b.peer(t, a))
	}
	b.order(t, control.OpRemoveFDB, control.Entry{MAC: other})
	if reach() || b.peer(t, a).Drops["not_member"] == 0 {
		t.Errorf("VTEP that is no member: %+v", b.peer(t, a))
	}
	b.order(t, control.OpSetFDB, control.Entry{MAC: a.mac(), VTEP: a.vtep})
	if !reach() {
		t.Error("no traffic after it was opened again")
	}
	a.order(t, control.OpRemoveFDB, control.Entry{MAC: b.mac()})
	if reach() || a.order(t, control.OpState).Networks[0].Drops["unknown_mac"] == 0 {
		t.Error("frame to a MAC that is nowhere")
	}
}

// TestTAPs makes, repeats, replaces and loses TAPs.
func TestTAPs(t *testing.T) {
	a := pair(t, false, false)[0]
	index := func() int {
		n := a.order(t, control.OpState).Networks
		if len(n) != 1 {
			t.Fatalf("networks: %+v", n)
		}
		return n[0].Index
	}
	first := index()
	if a.order(t, control.OpAddTAP); index() != first {
		t.Error("a TAP that was there was made again")
	}
	ip(t, "-n "+a.net+" link del vxlan0")
	if n := a.order(t, control.OpState).Networks; len(n) != 0 {
		t.Errorf("TAP is reported after its link was deleted: %+v", n)
	}
	if a.order(t, control.OpAddTAP); len(a.order(t, control.OpState).Networks[0].FDB) != 0 {
		t.Error("a new TAP has old entries")
	}
	a.order(t, control.OpRemoveTAP)
	a.order(t, control.OpRemoveTAP)
	for name, r := range map[string]control.Request{
		"no tap":       {Op: control.OpAddTAP},
		"no VNI":       {Op: control.OpAddTAP, TAP: &control.TAP{NetNS: a.net, Name: "x", Local: a.vtep, Port: 1, MTU: 1370}},
		"no namespace": {Op: control.OpAddTAP, TAP: &control.TAP{NetNS: "nowhere", Name: "x", VNI: 1, Local: a.vtep, Port: 1, MTU: 1370}},
		"no operation": {TAP: a.tap()},
		"no network":   {Op: control.OpSetFDB, TAP: a.tap(), Entries: []control.Entry{{MAC: a.mac(), VTEP: a.vtep}}},
		"profile":      {Op: control.OpProfile, Profile: &control.Profile{Name: "nothing"}},
	} {
		if _, err := a.control.Do(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if r, err := a.control.Do(control.Request{Op: control.OpProfile, Profile: &control.Profile{Name: "heap"}}); err != nil || len(r.Profile) == 0 {
		t.Errorf("heap profile: %v", err)
	}
}
