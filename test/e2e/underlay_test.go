package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/pkg/api"
	"weft/pkg/lab"
)

// peer is what a host says of another one's WireGuard peer.
func (w *world) peer(host, of string) api.PeerStatus {
	w.t.Helper()
	for _, p := range w.status(host).Peers {
		if p.Node == of {
			return p
		}
	}
	w.t.Fatalf("%s has no peer %s", host, of)
	return api.PeerStatus{}
}

// TestUnderlayMove changes a host's underlay address under its agent, without a word to anybody: WireGuard follows, and
// passes of the other agent do not draw it back to the address in the record.
func TestUnderlayMove(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("move", "--encrypted")
	w.endpoint("n1", n.Name, "move-a")
	b := w.endpoint("n2", n.Name, "move-b")
	a := func() string { return w.peer("n1", "n2").Endpoint }
	if p := w.ping("n1", "move-a", b.Address.Addr().String(), 5, 10*time.Millisecond, 84); p.Received != 5 {
		t.Fatalf("pings before: %+v", p)
	}
	home, away := w.underlay("n2"), netip.MustParseAddr("198.18.0.102")
	move := func(from, to netip.Addr) {
		w.run("n2", "sh", "-ec", fmt.Sprintf("echo 1 > /proc/sys/net/ipv4/conf/eth0/promote_secondaries\n"+
			"ip addr add %s/24 dev eth0; ip addr del %s/24 dev eth0; ip route replace default via 198.18.0.254", to, from))
	}
	move(home, away)
	back := false
	defer func() {
		if !back {
			move(away, home)
		}
	}()
	// Who moved must speak first: nobody else knows where it is.
	from := w.endpointAddress("n1", "move-a")
	if p := w.ping("n2", "move-b", from, 50, 10*time.Millisecond, n.MTU); p.Received < 45 {
		t.Errorf("pings from the host that moved: %+v", p)
	}
	want := fmt.Sprintf("%s:51820", away)
	before := w.status("n1").Reconcile
	w.eventually(20*time.Second, "n1 makes passes", func() error {
		if got := a(); got != want {
			t.Fatalf("n1 has n2 at %s, want %s", got, want)
		}
		if now := w.status("n1").Reconcile; now.Passes < before.Passes+3 {
			return fmt.Errorf("%+v, before %+v", now, before)
		}
		return nil
	})
	if p := w.ping("n1", "move-a", b.Address.Addr().String(), 20, 10*time.Millisecond, n.MTU); p.Received != 20 {
		t.Errorf("pings to the host that moved, after passes of the agent: %+v", p)
	}
	move(away, home)
	back = true
	if p := w.ping("n2", "move-b", from, 50, 10*time.Millisecond, n.MTU); p.Received < 45 {
		t.Errorf("pings from the host that moved back: %+v", p)
	}
	w.eventually(60*time.Second, "Consul of n2 is well again", func() error { _, err := w.try("n2", "consul", "kv", "get", "weft/cluster"); return err })
}

func (w *world) endpointAddress(host, name string) string {
	w.t.Helper()
	var e api.Endpoint
	w.weftJSON(&e, host, "endpoint", "inspect", name)
	return e.Address.String()
}

// TestUnderlayNAT puts n3 behind a NAT that forgets after 3 s. A keepalive of 1 s holds it open; without one, the far side
// cannot reach n3 any more, which shows that the NAT is there.
func TestUnderlayNAT(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("nat", "--encrypted")
	w.endpoint("n1", n.Name, "nat-a")
	c := w.endpoint("n3", n.Name, "nat-c")
	n1, router := w.underlay("n1"), w.underlay("out")
	if err := w.Partition("n1", "n3"); err != nil {
		t.Fatal(err)
	}
	config := w.Dir() + "/n3/weft.yaml"
	t.Cleanup(func() {
		w.run("n3", "sh", "-ec", fmt.Sprintf("mv %s.orig %s; ip route del %s", config, config, n1))
		w.run("out", "sh", "-ec", "nft delete table ip nat; echo 0 > /proc/sys/net/ipv4/ip_forward")
		if err := w.Heal("n1", "n3"); err != nil {
			t.Error(err)
		}
	})
	w.run("out", "sh", "-ec", `echo 1 > /proc/sys/net/ipv4/ip_forward
		for f in all default eth0; do echo 0 > /proc/sys/net/ipv4/conf/$f/send_redirects; done
		nft add table ip nat; nft 'add chain ip nat post { type nat hook postrouting priority 100; }'; nft add rule ip nat post oifname eth0 masquerade random
		for f in nf_conntrack_udp_timeout nf_conntrack_udp_timeout_stream; do echo 3 > /proc/sys/net/netfilter/$f; done`)
	w.run("n3", "sh", "-ec", fmt.Sprintf("cp %s %s.orig; ip route add %s via %s", config, config, n1, router))
	keepalive := func(interval string) {
		w.run("n3", "sh", "-ec", fmt.Sprintf("sed 's/^wireguard:/wireguard:\\n    keepalive: %s/' %s.orig > %s.new; mv %s.new %s", interval, config, config, config, config))
		seconds := strings.TrimSuffix(strings.Replace(interval, "0s", "off", 1), "s")
		w.eventually(10*time.Second, "n3 has keepalive "+interval, func() error {
			out := w.run("n3", append([]string{"ip", "netns", "exec", "weft-t"}, "wg", "show", "all", "persistent-keepalive")...)
			for line := range strings.Lines(out) {
				if f := strings.Fields(line); f[len(f)-1] != seconds {
					return errors.New(out)
				}
			}
			return nil
		})
	}
	keepalive("1s")
	w.eventually(10*time.Second, "n1 has n3 behind the router", func() error {
		if p := w.peer("n1", "n3"); !strings.HasPrefix(p.Endpoint, router.String()+":") {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	time.Sleep(7 * time.Second) // idle, for more than twice what the NAT remembers
	if p := w.ping("n1", "nat-a", c.Address.Addr().String(), 10, 10*time.Millisecond, n.MTU); p.Received != 10 {
		t.Errorf("pings to the host behind the NAT: %+v", p)
	}
	keepalive("0s")
	// The agents' probes open the way now and then, every half minute or so: between them it is shut.
	w.eventually(40*time.Second, "control: without keepalive the NAT forgets", func() error {
		time.Sleep(5 * time.Second)
		if p := w.ping("n1", "nat-a", c.Address.Addr().String(), 3, 10*time.Millisecond, 84); p.Received != 0 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	keepalive("1s")
	w.eventually(10*time.Second, "n3 is reached again", func() error {
		if p := w.ping("n1", "nat-a", c.Address.Addr().String(), 3, 10*time.Millisecond, 84); p.Received != 3 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
}

// TestUnderlayIPv6 runs the mesh over IPv6. The MTU of an encrypted network is chosen so that its largest packet then
// fills the underlay's exactly.
func TestUnderlayIPv6(t *testing.T) {
	w := ownWorld(t, lab.Options{Nodes: 2, NoAgents: true})
	for i, h := range w.Nodes() {
		address := fmt.Sprintf("2001:db8::%d", i+1)
		w.run(h, "sh", "-ec", fmt.Sprintf("ip addr add %s/64 dev eth0 nodad; sed -i 's/^advertise:.*/advertise: %s/' %s/%s/weft.yaml", address, address, w.Dir(), h))
	}
	for _, h := range w.Nodes() {
		if err := w.StartAgent(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range w.Nodes() {
		if err := w.WaitReady(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	w.weft("n1", "network", "create", "six", "--encrypted")
	w.known("six", w.Nodes()...)
	var n api.Network
	w.weftJSON(&n, "n1", "network", "inspect", "six")
	w.endpoint("n1", "six", "six-a")
	b := w.endpoint("n2", "six", "six-b")
	if p := w.ping("n1", "six-a", b.Address.Addr().String(), 5, 10*time.Millisecond, 84); p.Received != 5 {
		t.Fatalf("small pings: %+v", p)
	}
	var wireguard, largest, otherwise int
	c, err := w.Capture(t.Context(), func(f lab.Frame) {
		switch b := f.Data; {
		case len(b) < 62 || binary.BigEndian.Uint16(b[12:]) != 0x86dd:
		case b[20] == 17 && binary.BigEndian.Uint16(b[56:]) == 51820:
			wireguard++
			largest = max(largest, len(b)-14)
		case b[20] != 58 && b[20] != 0: // neighbour discovery, and multicast listener reports (after a hop-by-hop header)
			otherwise++ // fragments (44), for one
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	p := w.ping("n1", "six-a", b.Address.Addr().String(), 20, 10*time.Millisecond, n.MTU)
	if _, err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if p.Received != 20 || wireguard < 40 || largest > 1500 || largest < 1480 || otherwise > 0 {
		t.Errorf("full-size pings: %+v; %d WireGuard packets, the largest of %d bytes, %d others", p, wireguard, largest, otherwise)
	}
	t.Logf("MTU %d: largest IPv6 packet on the underlay %d bytes", n.MTU, largest)
}
