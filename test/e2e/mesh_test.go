package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/pkg/api"
	"weft/pkg/lab"
)

// tap counts what crosses the underlay by kind.
type tap struct {
	wireguard, vxlan, consul, arp, other, marked int
	sample                                       []byte
}

// watch counts frames while f runs.
func (w *world) watch(marker string, f func()) *tap {
	w.t.Helper()
	tp := &tap{}
	c, err := w.Capture(context.Background(), func(fr lab.Frame) { tp.see(fr, marker) })
	if err != nil {
		w.t.Fatal(err)
	}
	f()
	if _, err := c.Stop(); err != nil {
		w.t.Fatal(err)
	}
	return tp
}

func (tp *tap) see(f lab.Frame, marker string) {
	b := f.Data
	if marker != "" && bytes.Contains(b, []byte(marker)) {
		tp.marked++
	}
	switch kind := binary.BigEndian.Uint16(b[12:]); {
	case kind == 0x0806:
		tp.arp++
	case kind != 0x0800 || len(b) < 42:
		tp.other++ // IPv6 neighbour discovery of the hosts' interfaces
	default:
		head := 14 + int(b[14]&15)*4
		sport, dport := binary.BigEndian.Uint16(b[head:]), binary.BigEndian.Uint16(b[head+2:])
		consul := func(p uint16) bool { return p >= 8300 && p <= 8302 || p == 8500 }
		switch {
		case b[23] == 17 && dport == 4789:
			tp.vxlan++
		case b[23] == 17 && (dport == 51820 || dport == 51821):
			tp.wireguard++
		case consul(sport) || consul(dport):
			tp.consul++
		default:
			tp.other++
			tp.sample = slices.Clone(b)
		}
	}
}

// reaches waits until both sides of a path know each other: what comes first there is TestFirstContact's subject.
func (w *world) reaches(host, endpoint string, to netip.Addr) {
	w.t.Helper()
	w.eventually(5*time.Second, endpoint+" reaches "+to.String(), func() error {
		if p := w.ping(host, endpoint, to.String(), 1, 10*time.Millisecond, 84); p.Received != 1 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
}

func TestFullMTUPingEncrypted(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("mtu-enc", "--encrypted")
	if n.MTU != 1370 {
		t.Fatalf("MTU of an encrypted network on a 1500 underlay is %d, want 1370", n.MTU)
	}
	w.endpoint("n1", n.Name, "mtu-a")
	b := w.endpoint("n2", n.Name, "mtu-b")
	w.reaches("n1", "mtu-a", b.Address.Addr())
	tp := w.watch("", func() {
		if p := w.ping("n1", "mtu-a", b.Address.Addr().String(), 20, 10*time.Millisecond, n.MTU); p.Received != 20 {
			t.Errorf("full-size pings: %+v", p)
		}
		if p := w.ping("n1", "mtu-a", b.Address.Addr().String(), 1, 10*time.Millisecond, n.MTU+1); !strings.Contains(p.Error, "too long") {
			t.Errorf("a ping of MTU+1 with DF set was not refused: %+v", p)
		}
	})
	if tp.vxlan != 0 || tp.wireguard < 40 || len(tp.sample) > 0 {
		t.Errorf("underlay saw %+v, want WireGuard only (at least 40), beside Consul and ARP", *tp)
	}
	t.Logf("underlay: %d WireGuard, %d VXLAN, %d Consul", tp.wireguard, tp.vxlan, tp.consul)
}

func TestFullMTUPingPlain(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("mtu-plain")
	if n.MTU != 1450 {
		t.Fatalf("MTU of a plain network on a 1500 underlay is %d, want 1450", n.MTU)
	}
	w.endpoint("n1", n.Name, "mtup-a")
	b := w.endpoint("n2", n.Name, "mtup-b")
	w.reaches("n1", "mtup-a", b.Address.Addr())
	tp := w.watch("", func() {
		if p := w.ping("n1", "mtup-a", b.Address.Addr().String(), 20, 10*time.Millisecond, n.MTU); p.Received != 20 {
			t.Errorf("full-size pings: %+v", p)
		}
	})
	if tp.vxlan < 40 {
		t.Errorf("underlay saw %+v, want at least 40 VXLAN packets", *tp)
	}
}

// forgery is a VXLAN packet to an endpoint whose inner datagram carries a marker.
func forgery(t *testing.T, n api.Network, victim api.Attachment, marker string) []byte {
	src := n.Subnets[0].Addr().Next().Next().Next().Next() // some address of the subnet
	inner := ethernet(mac(t, victim.MAC), mac(t, "02:aa:aa:aa:aa:aa"), 0x0800,
		udp4(src, victim.Address.Addr(), 5555, 7777, []byte(marker)))
	return vxlan(n.VNI, inner)
}

func drops(s api.Status) (n uint64) {
	for _, v := range s.Drops {
		n += v
	}
	return n
}

// TestForgedPackets sends the same forged packet from every place an attacker may be. The positive control comes first:
// sent as a member of a plain network it arrives, so the generator is right.
func TestForgedPackets(t *testing.T) {
	w := sharedWorld(t)
	plain := w.network("forge-plain")
	enc := w.network("forge-enc", "--encrypted")
	other := w.network("forge-other", "--encrypted")
	victimPlain := w.endpoint("n1", plain.Name, "victim-plain")
	victim := w.endpoint("n1", enc.Name, "victim")
	w.endpoint("n2", plain.Name, "member-plain")
	w.endpoint("n2", enc.Name, "member")
	w.endpoint("n3", other.Name, "stranger") // n3 is in the mesh, not on forge-enc
	w.endpoint("n1", other.Name, "stranger-1")
	time.Sleep(300 * time.Millisecond) // every node knows every endpoint
	n1, n2, n3 := w.underlay("n1"), w.underlay("n2"), w.underlay("n3")

	w.run("n1", "ip", "addr", "add", "198.18.0.101/24", "dev", "eth0") // an address that no record names
	t.Cleanup(func() { w.run("n1", "ip", "addr", "del", "198.18.0.101/24", "dev", "eth0") })
	userTo := func(address, marker string) []string {
		return tool("send", address+":4789", toHex(forgery(t, plain, victimPlain, marker)), "40", "65534")
	}
	underlayFrame := func(from string, n api.Network, v api.Attachment, marker string, src netip.Addr) []string {
		return tool("frame", "eth0", toHex(ethernet(w.hardware("n1"), w.hardware(from), 0x0800,
			udp4(src, n1, 40000, 4789, forgery(t, n, v, marker)))), "40")
	}
	for _, c := range []struct {
		name    string
		victim  string
		host    string
		argv    []string
		counted []string // hosts of which one counts the drops
		arrives bool
	}{
		{"positive control: member of the plain network", "victim-plain", "n2", underlayFrame("n2", plain, victimPlain, "control", n2), nil, true},
		{"underlay, plain VNI, not a member", "victim-plain", "out", underlayFrame("out", plain, victimPlain, "out-plain", w.underlay("out")), []string{"n1"}, false},
		{"underlay, plain VNI, from a weft node that is not on it", "victim-plain", "n3", underlayFrame("n3", plain, victimPlain, "n3-plain", n3), []string{"n1"}, false},
		{"underlay, encrypted VNI", "victim", "out", underlayFrame("out", enc, victim, "out-enc", w.underlay("out")), []string{"n1"}, false},
		{"underlay, encrypted VNI, source of a member", "victim", "out", underlayFrame("out", enc, victim, "spoofed-enc", n2), []string{"n1"}, false},
		{"inside an endpoint, through egress", "victim-plain", "n2", in("member-plain", tool("send", n1.String()+":4789", toHex(forgery(t, plain, victimPlain, "egress")), "40")), []string{"n2", "n1"}, false},
		{"inside an endpoint, through egress, encrypted VNI", "victim", "n2", in("member", tool("send", n1.String()+":4789", toHex(forgery(t, enc, victim, "egress-enc")), "40")), []string{"n2", "n1"}, false},
		{"unprivileged user of a member's host", "victim-plain", "n2", tool("send", n1.String()+":4789", toHex(forgery(t, plain, victimPlain, "user")), "40", "65534"), []string{"n2"}, false},
		{"root process of a member's host", "victim-plain", "n2", tool("send", n1.String()+":4789", toHex(forgery(t, plain, victimPlain, "root")), "40"), []string{"n2"}, false},
		{"unprivileged user, to a secondary address", "victim-plain", "n2", userTo("198.18.0.101", "secondary"), []string{"n1", "n2"}, false},
		{"unprivileged user, to the broadcast address", "victim-plain", "n2", userTo("198.18.0.255", "broadcast"), []string{"n1", "n2"}, false},
		{"unprivileged user, to a multicast group", "victim-plain", "n2", userTo("224.0.0.1", "multicast"), []string{"n1", "n2"}, false},
		{"inside an endpoint, to a secondary address", "victim-plain", "n2", in("member-plain", tool("send", "198.18.0.101:4789", toHex(forgery(t, plain, victimPlain, "egress-2")), "40")), []string{"n2", "n1"}, false},
		{"member, to a secondary address", "victim-plain", "n2", tool("frame", "eth0", toHex(ethernet(w.hardware("n1"), w.hardware("n2"), 0x0800,
			udp4(n2, netip.MustParseAddr("198.18.0.101"), 40000, 4789, forgery(t, plain, victimPlain, "member-2")))), "40"), []string{"n1"}, false},
		{"mesh member that is not on the network", "victim", "n3", w.inTransit("n3", tool("send", w.vtep("n1").String()+":4789", toHex(forgery(t, enc, victim, "mesh")), "40")), []string{"n1"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{w.Lab, t}
			before := map[string]uint64{}
			for _, h := range c.counted {
				before[h] = drops(w.status(h))
			}
			l := w.listen("n1", c.victim, 7777, 1500*time.Millisecond)
			w.run(c.host, c.argv...)
			var h heard
			l.result(&h)
			if got := len(h.Packets) > 0; got != c.arrives {
				t.Errorf("arrived: %v (%v), want %v", got, h.Packets, c.arrives)
			}
			counted := uint64(0)
			for _, host := range c.counted {
				counted += drops(w.status(host)) - before[host]
			}
			if len(c.counted) > 0 && counted < 20 {
				t.Errorf("%d drops counted on %v, want 20 at least", counted, c.counted)
			}
		})
	}
}

// underlay is a host's underlay address.
func (w *world) underlay(host string) netip.Addr {
	w.t.Helper()
	h, err := w.Host(host)
	if err != nil {
		w.t.Fatal(err)
	}
	return h.Address
}

// hardware is the Ethernet address of a host's eth0.
func (w *world) hardware(host string) []byte {
	w.t.Helper()
	return mac(w.t, strings.TrimSpace(w.run(host, "cat", "/sys/class/net/eth0/address")))
}

func (w *world) vtep(host string) netip.Addr { w.t.Helper(); return w.status(host).VTEP }

// inTransit makes argv run in a host's namespace weft-t, as only root there can.
func (w *world) inTransit(_ string, argv []string) []string {
	return append([]string{"ip", "netns", "exec", "weft-t"}, argv...)
}

// knows reports whether a host's forwarding table of a network has a MAC.
func (w *world) knows(host string, n api.Network, mac string) error {
	fdb, err := w.try(host, "ip", "netns", "exec", "weft-n-"+string(n.ID), "bridge", "fdb", "show", "dev", "vxlan0")
	if err == nil && !strings.Contains(fdb, mac+" master") {
		err = errors.New(fdb)
	}
	return err
}

// TestFirstContact measures the first packet between two endpoints that never spoke, on hosts whose mesh is idle.
func TestFirstContact(t *testing.T) {
	w := sharedWorld(t)
	for _, flags := range [][]string{{"--encrypted"}, nil} {
		name := fmt.Sprintf("first-%d", len(flags))
		n := w.network(name, flags...)
		b := w.endpoint("n2", n.Name, name+"-b")
		a := w.endpoint("n1", n.Name, name+"-a")
		w.eventually(5*time.Second, "n2 knows the way back", func() error {
			return w.knows("n2", n, a.MAC)
		})
		p := w.ping("n1", name+"-a", b.Address.Addr().String(), 1, 50*time.Millisecond, 84)
		if limit := slow(200 * time.Millisecond); p.Received != 1 || p.FirstMS > limit.Seconds()*1e3 {
			t.Errorf("network %s: first packet: %+v, want an answer within %v", n.Name, p, limit)
		}
		t.Logf("network %s (encrypted %v): first packet answered after %.1f ms", n.Name, n.Encrypted, p.FirstMS)
	}
}
