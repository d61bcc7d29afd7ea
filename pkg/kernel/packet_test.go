package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/pkg/netns"
	"weft/pkg/overlay"
)

// outside is a machine beyond the host: 192.0.2.2 (node n2) and 192.0.2.9 (nobody) on the underlay, and 198.51.100.1.
const outside = "outside"

func (w *world) underlay() {
	w.t.Helper()
	w.t.Cleanup(func() {
		_, _ = shErr("", "ip link del under0")
		_ = netns.Delete(outside)
	})
	if err := netns.Create(outside); err != nil {
		w.t.Fatal(err)
	}
	sh(w.t, "", `ip link add under0 type veth peer name under0 netns outside
		ip addr add 192.0.2.1/24 dev under0; ip link set under0 up; ip link set lo up; ip route add default via 192.0.2.2`)
	sh(w.t, outside, `ip addr add 192.0.2.2/24 dev under0; ip addr add 192.0.2.9/24 dev under0; ip link set under0 up
		ip link set lo up; ip addr add 198.51.100.1/32 dev lo
		for i in 1 2 3 4 5; do ping -n -q -c 1 -W 2 192.0.2.1 && break; done`)
}

func (w *world) counter(name string) uint64 {
	w.t.Helper()
	m, err := w.Counters(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return m[name]
}

// rises checks that f raises a counter.
func (w *world) rises(name string, f func()) {
	w.t.Helper()
	before := w.counter(name)
	f()
	for range 100 {
		if w.counter(name) > before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Errorf("counter %s stays %d", name, before)
}

const ping = "ping -n -q -c 2 -i 0.05 -W 1 "

func TestNeighboursTalkAndSpoofersDoNot(t *testing.T) {
	w := newWorld(t)
	w.network(1, false, 3)
	w.converge()
	a, b, thief := w.in.Local[0], w.in.Local[1], w.in.Local[2]
	sh(t, a.NetNS, ping+b.Address.String())
	sh(t, b.NetNS, ping+"10.0.1.1")
	sh(t, a.NetNS, ping+"-s 1422 -M do "+b.Address.String())

	// Another's address from its own MAC: neither IPv4 nor ARP passes.
	sh(t, thief.NetNS, "ip addr add "+a.Address.String()+"/32 dev eth0")
	w.rises("spoofed", func() {
		if out, err := shErr(thief.NetNS, ping+"-I "+a.Address.String()+" "+b.Address.String()); err == nil {
			t.Errorf("an endpoint spoke with another's address:\n%s", out)
		}
	})
	// Another's MAC as well: the locked port has a static entry for its own only.
	sh(t, thief.NetNS, "ip addr flush dev eth0; ip link set eth0 address "+a.MAC.String()+"; ip addr add "+a.Address.String()+"/24 dev eth0")
	if out, err := shErr(thief.NetNS, ping+b.Address.String()); err == nil {
		t.Errorf("an endpoint spoke with another's MAC and address:\n%s", out)
	}
	sh(t, a.NetNS, ping+b.Address.String())
	w.rises("endpoint_ipv6", func() { _, _ = shErr(a.NetNS, ping+"-6 ff02::1%eth0") })
	w.eventually() // the thief's addresses go, and what its own one lost with them comes back
}

// frame is an Ethernet frame with a UDP packet of IPv4.
func frame(from, to overlay.Endpoint, port uint16, payload string) []byte {
	udp := binary.BigEndian.AppendUint16(nil, 40000)
	udp = binary.BigEndian.AppendUint16(udp, port)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	udp = append(append(udp, 0, 0), payload...) // no checksum
	ip := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0}
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(udp)))
	ip = append(append(ip, from.Address.AsSlice()...), to.Address.AsSlice()...)
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	eth := append(append(append([]byte{}, to.MAC[:]...), from.MAC[:]...), 8, 0)
	return append(append(eth, ip...), udp...)
}

// vxlan sends a frame from a process in the namespace outside.
func vxlan(t *testing.T, from string, vni overlay.VNI, reserved byte, frame []byte) {
	t.Helper()
	head := []byte{8, 0, 0, 0, byte(vni >> 16), byte(vni >> 8), byte(vni), reserved}
	err := netns.Do(outside, func() error {
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4789})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(append(head, frame...))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFenceLetsMembersIn(t *testing.T) {
	w := newWorld(t)
	n := w.network(1, false, 1)
	other := w.network(2, false, 0)
	w.underlay()
	w.converge()
	to := w.in.Local[0]
	remote := overlay.Endpoint{Address: netip.MustParseAddr("10.0.1.102"), MAC: mac(1, 2, 1)}
	var conn *net.UDPConn
	err := netns.Do(to.NetNS, func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: to.Address.AsSlice(), Port: 7000})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hears := func(wait time.Duration) string {
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		buf := make([]byte, 100)
		n, err := conn.Read(buf)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	start := time.Now()
	got := ""
	for range 60 { // the kernel reports a new link as up to its bridge only after a moment (linkwatch)
		vxlan(t, "192.0.2.2", n.VNI, 0, frame(remote, to.Endpoint, 7000, "member"))
		if got = hears(50 * time.Millisecond); got != "" {
			break
		}
	}
	if got != "member" {
		t.Fatalf("heard %q from a member, want its packet", got)
	}
	t.Logf("first packet after %v", time.Since(start))
	for name, c := range map[string]struct {
		from     string
		vni      overlay.VNI
		reserved byte
	}{
		"source is no member":       {"192.0.2.9", n.VNI, 0},
		"reserved byte set":         {"192.0.2.9", n.VNI, 1},
		"member of no such network": {"192.0.2.2", other.VNI, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w.rises("vxlan_in", func() { vxlan(t, c.from, c.vni, c.reserved, frame(remote, to.Endpoint, 7000, "forged")) })
			if got := hears(100 * time.Millisecond); got != "" {
				t.Errorf("heard %q", got)
			}
		})
	}
	// A VNI that is not weft's is left alone: not counted.
	before := w.counter("vxlan_in")
	vxlan(t, "192.0.2.9", 4097, 0, frame(remote, to.Endpoint, 7000, "foreign"))
	time.Sleep(50 * time.Millisecond)
	if got := w.counter("vxlan_in"); got != before {
		t.Errorf("a foreign VNI was counted: %d, was %d", got, before)
	}
}

func TestProcessesCannotSendVXLAN(t *testing.T) {
	w := newWorld(t)
	w.network(1, false, 1)
	w.underlay()
	w.converge()
	w.rises("vxlan_out", func() {
		c, err := net.Dial("udp4", "192.0.2.2:4789")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPERM) {
			t.Errorf("a process sent to the VXLAN port of a node: %v, want EPERM", err)
		}
	})
	w.rises("leg_ports", func() { // from inside an endpoint, through NAT, to this host's own port
		_, _ = shErr(w.in.Local[0].NetNS, "bash -c 'echo x > /dev/udp/192.0.2.1/4789'")
	})
	w.rises("vxlan_forward", func() {
		_, _ = shErr(w.in.Local[0].NetNS, "bash -c 'echo x > /dev/udp/192.0.2.2/4789'")
	})
}

func TestEgress(t *testing.T) {
	w := newWorld(t)
	w.network(1, false, 1)
	w.network(2, true, 1)
	w.underlay()
	w.converge()
	a, b := w.in.Local[0], w.in.Local[1]
	for _, e := range []overlay.LocalEndpoint{a, b} {
		sh(t, e.NetNS, ping+"198.51.100.1")
	}
	seen := sh(t, outside, "ip neigh; ss -H -n 2>/dev/null || true")
	if strings.Contains(seen, "169.254.") {
		t.Errorf("a leg address got out:\n%s", seen)
	}
	w.rises("leg_to_leg", func() { _, _ = shErr(a.NetNS, ping+"169.254.64.5") })
	sh(t, outside, "ip route add 10.0.0.0/8 via 192.0.2.1; ip route add 169.254.64.0/18 via 192.0.2.1")
	w.rises("leg_unsolicited", func() { _, _ = shErr(outside, ping+"169.254.64.3") })
	if out, err := shErr(a.NetNS, ping+b.Address.String()); err == nil {
		t.Errorf("one network reached another:\n%s", out)
	}
}
