package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestOverlappingNetworks runs two networks with one subnet side by side on the same hosts: isolated from each other,
// and each with its own way out.
func TestOverlappingNetworks(t *testing.T) {
	w := sharedWorld(t)
	red := w.network("red", "--subnet", "10.77.0.0/24")
	if out, err := w.try("n1", "weft", "network", "create", "blue", "--subnet", "10.77.0.0/24", "--encrypted"); err == nil || !strings.Contains(err.Error(), "red") {
		t.Fatalf("an overlapping subnet was not refused with the other network's name: %v %s", err, out)
	}
	blue := w.network("blue", "--subnet", "10.77.0.0/24", "--encrypted", "--allow-overlap")
	for i, n := range []string{red.Name, blue.Name} {
		w.endpoint("n1", n, n+"-1", "--ip", "10.77.0.10")
		w.endpoint("n2", n, n+"-2", "--ip", "10.77.0.20")
		w.endpoint("n2", n, fmt.Sprintf("%s-only", n), "--ip", fmt.Sprintf("10.77.0.%d", 30+i))
	}
	out := w.underlay("out").String()
	for i, n := range []string{red.Name, blue.Name} {
		if p := w.ping("n1", n+"-1", "10.77.0.20", 5, 10*time.Millisecond, 84); p.Received != 5 {
			t.Errorf("%s: pings inside: %+v", n, p)
		}
		if p := w.ping("n1", n+"-1", fmt.Sprintf("10.77.0.%d", 30+i), 3, 10*time.Millisecond, 84); p.Received != 3 {
			t.Errorf("%s: pings to its own endpoint: %+v", n, p)
		}
		if p := w.ping("n1", n+"-1", fmt.Sprintf("10.77.0.%d", 31-i), 3, 10*time.Millisecond, 84); p.Received != 0 {
			t.Errorf("%s reaches an endpoint of the other network: %+v", n, p)
		}
		if p := w.ping("n1", n+"-1", out, 5, 10*time.Millisecond, 84); p.Received != 5 {
			t.Errorf("%s: pings through egress to %s: %+v", n, out, p)
		}
	}
}

// TestNetworksAreApart checks that an endpoint of one network reaches neither another network nor that one's egress leg.
func TestNetworksAreApart(t *testing.T) {
	w := sharedWorld(t)
	one, two := w.network("apart-1"), w.network("apart-2", "--encrypted")
	w.endpoint("n1", one.Name, "apart-a")
	b := w.endpoint("n1", two.Name, "apart-b")
	if p := w.ping("n1", "apart-a", b.Address.Addr().String(), 3, 10*time.Millisecond, 84); p.Received != 0 {
		t.Errorf("an endpoint of another network answers: %+v", p)
	}
	legs := w.run("n1", "sh", "-c", `ip -o -4 addr show | grep -o 'weftx[^ ]* *inet [0-9.]*' | awk '{print $3}'`)
	if len(strings.Fields(legs)) < 2 {
		t.Fatalf("no egress legs on n1: %q", legs)
	}
	before := w.status("n1")
	for _, leg := range strings.Fields(legs) {
		far := strings.TrimSuffix(leg, leg[strings.LastIndexByte(leg, '.'):])
		var last int
		fmt.Sscan(leg[strings.LastIndexByte(leg, '.')+1:], &last)
		for _, addr := range []string{leg, fmt.Sprintf("%s.%d", far, last+1)} {
			own := strings.Contains(w.run("n1", "sh", "-c", "ip netns exec weft-n-"+string(one.ID)+" ip -o -4 addr show dev egress0"), addr+"/")
			if p := w.ping("n1", "apart-a", addr, 2, 10*time.Millisecond, 84); p.Received != 0 && !own {
				t.Errorf("an egress leg that is not its own, %s, answers: %+v", addr, p)
			}
		}
	}
	if after := w.status("n1"); drops(after) <= drops(before) {
		t.Errorf("nothing of it was counted: %v, then %v", before.Drops, after.Drops)
	}
}

// TestInternalNetwork reaches its own endpoints and nothing else.
func TestInternalNetwork(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("inside", "--internal", "--encrypted")
	w.endpoint("n1", n.Name, "inside-a")
	b := w.endpoint("n2", n.Name, "inside-b")
	if p := w.ping("n1", "inside-a", b.Address.Addr().String(), 3, 10*time.Millisecond, 84); p.Received != 3 {
		t.Errorf("pings inside: %+v", p)
	}
	for what, addr := range map[string]string{"the world": w.underlay("out").String(), "its host": w.underlay("n1").String(), "another host": w.underlay("n2").String()} {
		if p := w.ping("n1", "inside-a", addr, 2, 10*time.Millisecond, 84); p.Received != 0 {
			t.Errorf("an internal network reaches %s (%s): %+v", what, addr, p)
		}
	}
}

// TestStolenIdentity lets an endpoint take its neighbour's MAC and address, on the same node and with gratuitous ARP: it
// gets nothing, and the neighbour loses nothing.
func TestStolenIdentity(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("steal", "--encrypted")
	victim := w.endpoint("n1", n.Name, "victim-s")
	thief := w.endpoint("n1", n.Name, "thief")
	peer := w.endpoint("n2", n.Name, "peer-s")
	steady := w.startPing("n2", "peer-s", victim.Address.Addr().String(), 400, 10*time.Millisecond, 84)
	time.Sleep(300 * time.Millisecond)
	before := w.status("n1").Drops["spoofed"]
	inThief := func(script string) { w.run("n1", in("thief", []string{"sh", "-c", script})...) }
	broadcast := mac(t, "ff:ff:ff:ff:ff:ff")
	vm, va := mac(t, victim.MAC), victim.Address.Addr()
	// Its own MAC, the victim's address: gratuitous ARP and a datagram.
	for _, f := range [][]byte{
		ethernet(broadcast, mac(t, thief.MAC), 0x0806, arpReply(mac(t, thief.MAC), va, broadcast, va)),
		ethernet(mac(t, peer.MAC), mac(t, thief.MAC), 0x0800, udp4(va, peer.Address.Addr(), 1, 7777, []byte("stolen address"))),
		ethernet(broadcast, vm, 0x0806, arpReply(vm, va, broadcast, va)),
		ethernet(mac(t, peer.MAC), vm, 0x0800, udp4(va, peer.Address.Addr(), 1, 7777, []byte("stolen mac"))),
	} {
		w.run("n1", in("thief", tool("frame", "eth0", toHex(f), "10"))...)
	}
	// All of it: the interface takes MAC and address, then listens and asks.
	steal := "ip link set eth0 down; ip link set eth0 address " + victim.MAC + "; ip addr flush dev eth0; ip link set eth0 up; ip addr add " + victim.Address.String() + " dev eth0"
	l := w.listen("n2", "peer-s", 7777, 1200*time.Millisecond)
	for try := 1; ; try++ {
		inThief(steal)
		p := w.ping("n1", "thief", peer.Address.Addr().String(), 20, 10*time.Millisecond, 84)
		if p.Received == 0 {
			break
		}
		// The agent mends the thief's namespace within 2 s; then what it sends is its own. A slow machine may take so long.
		if eth0 := w.run("n1", in("thief", []string{"ip", "-o", "link", "show", "dev", "eth0"})...); strings.Contains(eth0, victim.MAC) || try == 5 {
			t.Errorf("the thief gets answers: %+v, its interface is %s", p, eth0)
			break
		}
	}
	var h heard
	l.result(&h)
	if len(h.Packets) != 0 {
		t.Errorf("the thief's packets arrive: %v", h.Packets)
	}
	var p pings
	steady.result(&p)
	if p.Received != p.Sent {
		t.Errorf("the neighbour lost %d of %d pings: %v", p.Sent-p.Received, p.Sent, p.Lost)
	}
	if after := w.status("n1").Drops["spoofed"]; after == before {
		t.Errorf("spoofed frames were not counted: %d, then %d", before, after)
	}
}
