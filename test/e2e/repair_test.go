package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/pkg/api"
	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/overlay"
)

// TestRepair breaks, by hand, each kind of thing that weft keeps, and waits until it is as before. What concerned one
// endpoint must not cost the others a ping.
func TestRepair(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("repair", "--encrypted")
	a := w.endpoint("n1", n.Name, "rep-a")
	w.endpoint("n1", n.Name, "rep-other")
	b := w.endpoint("n2", n.Name, "rep-b")
	c := w.endpoint("n3", n.Name, "rep-c")
	ns := "ip netns exec " + kstate.NetworkNS(n.ID) + " "
	ens := "ip netns exec " + kstate.EndpointNS(overlay.EndpointID(a.ID)) + " "
	veth := kstate.EndpointLink(a.ID)
	// Where the engine does VXLAN, its forwarding entries are not the kernel's: they are hurt and seen through the engine.
	tap := `{"netns":"` + kstate.NetworkNS(n.ID) + `","name":"vxlan0"}`
	call := func(op, entry string) string {
		return `weft engine-call '{"op":"` + op + `","tap":` + tap + `,"entries":[` + entry + `]}'`
	}
	lose, stray := ns+"bridge fdb del "+b.MAC+" dev vxlan0 self", ns+"bridge fdb add 02:99:99:99:99:99 dev vxlan0 self dst 100.64.9.9"
	entries := ns + "bridge fdb show dev vxlan0 | grep -v permanent | sort"
	if w.status("n1").Backend == "engine" {
		lose = call("remove-fdb", `{"mac":"`+b.MAC+`"}`)
		stray = call("set-fdb", `{"mac":"02:99:99:99:99:99","vtep":"100.64.9.9"}`)
		entries += `; weft engine-call '{"op":"state"}' | grep -E '"(netns|vni|mac|vtep)"'`
	}
	links := `ip -o link | sed 's/@.*//' | cut -d: -f2 | sort`
	for _, d := range []struct{ name, hurt, look string }{
		{"FDB entry of the VXLAN device", lose, entries},
		{"FDB entry of the bridge", ns + "bridge fdb del " + b.MAC + " dev vxlan0 master", entries},
		{"neighbour", ns + "ip neigh del " + b.Address.Addr().String() + " dev br0", ns + "ip neigh show dev br0 nud permanent | sort"},
		{"address of an endpoint", ens + "ip addr del " + a.Address.String() + " dev eth0", ens + "ip -o -4 addr show dev eth0; " + ens + "ip route show default"},
		{"default route of an endpoint", ens + "ip route del default", ens + "ip route show default"},
		{"bridge membership", ns + "ip link set " + veth + " nomaster", ns + "bridge -d link show dev " + veth},
		{"bridge port flags", ns + "bridge link set dev " + veth + " learning on locked off", ns + "bridge -d link show dev " + veth},
		{"link down", ns + "ip link set " + veth + " down", ns + "ip -o link show dev " + veth + " up"},
		{"MTU", ns + "ip link set " + veth + " mtu 1300", ns + "ip -o link show dev " + veth},
		{"stray FDB entry", stray, entries},
	} {
		t.Run(d.name, func(t *testing.T) { w.repair(t, d.hurt, d.look, c.Address.Addr().String(), true) })
	}
	var n2 api.Node
	w.weftJSON(&n2, "n1", "node", "inspect", "n2")
	wg, peer, device := "ip netns exec weft-t wg ", n2.WireGuard[0], kstate.WGName(1)
	peers := wg + "show " + device + " allowed-ips | sort; " + wg + "show " + device + " listen-port; " + wg + "show " + device +
		" public-key; ip netns exec weft-t ip -o link show up | cut -d: -f2 | sort; ip netns exec weft-t ip route | sort"
	for _, d := range []struct{ name, hurt, look string }{
		{"WireGuard peer", wg + "set " + device + " peer " + peer + " remove", peers},
		{"WireGuard allowed addresses", wg + "set " + device + " peer " + peer + " allowed-ips 100.64.9.9/32", peers},
		{"WireGuard stray peer", "wg genkey | wg pubkey > /run/stray; " + wg + "set " + device + " peer $(cat /run/stray)", peers},
		{"WireGuard port", wg + "set " + device + " listen-port 51999", peers},
		{"WireGuard key", "wg genkey > /run/stray; " + wg + "set " + device + " private-key /run/stray", peers},
		{"WireGuard link down", "ip netns exec weft-t ip link set " + device + " down", peers},
		{"WireGuard link", "ip netns exec weft-t ip link del " + device, peers},
		{"gateway address", ns + "ip addr del " + n.Gateway.String() + "/24 dev br0", ns + "ip -o -4 addr show dev br0"},
		{"VXLAN device", ns + "ip link del vxlan0", ns + links + "; " + entries},
		{"bridge", ns + "ip link del br0", ns + links},
		{"route to a VTEP", "ip netns exec weft-t ip route del " + w.vtep("n2").String(), "ip netns exec weft-t ip route | sort"},
		{"VTEP address", "ip netns exec weft-t ip addr del " + w.vtep("n1").String() + "/32 dev lo", "ip netns exec weft-t ip -o addr show dev lo; ip netns exec weft-t ip route | sort"},
		{"fence of the transit namespace", "ip netns exec weft-t nft flush chain inet weft input", "ip netns exec weft-t nft -s list chain inet weft input"},
		{"fence member", "ip netns exec weft-t nft flush set inet weft members", "ip netns exec weft-t nft -s list set inet weft members | tr ',' '\\n' | grep -c '100.64'"},
		{"whole ruleset", "nft flush ruleset", "nft -s list table inet weft | grep -c rule; nft -s list chain inet weft forward"},
		{"whole host table", "nft delete table inet weft", "nft -s list table inet weft | grep -c rule; nft -s list chain inet weft forward"},
	} {
		t.Run(d.name, func(t *testing.T) { w.repair(t, d.hurt, d.look, c.Address.Addr().String(), false) })
	}
	if p := w.ping("n1", "rep-a", b.Address.Addr().String(), 5, 10*time.Millisecond, n.MTU); p.Received != 5 {
		t.Errorf("after all repairs: %+v", p)
	}
}

// repair runs hurt, and waits until look prints what it printed before. With steady, another endpoint pings another
// host all the time and must lose nothing.
func (w *world) repair(t *testing.T, hurt, look, to string, steady bool) {
	sub := &world{w.Lab, t}
	show := func() string {
		out, err := sub.try("n1", "sh", "-c", look)
		return fmt.Sprint(out, err != nil)
	}
	before := show()
	var r *running
	if steady {
		r = sub.startPing("n1", "rep-other", to, 300, 10*time.Millisecond, 84)
		time.Sleep(200 * time.Millisecond)
	}
	sub.run("n1", "sh", "-c", hurt)
	broken := time.Now()
	if show() == before && time.Since(broken) < 20*time.Millisecond {
		t.Logf("repaired before it could be looked at, or nothing was broken")
	}
	sub.eventually(5*time.Second, "repaired", func() error {
		if now := show(); now != before {
			return fmt.Errorf("it is\n%s\nand was\n%s", now, before)
		}
		return nil
	})
	t.Logf("repaired within %.1f s", time.Since(broken).Seconds())
	if steady {
		var p pings
		r.result(&p)
		if p.Received != p.Sent {
			t.Errorf("another endpoint lost %d of %d pings: %v", p.Sent-p.Received, p.Sent, p.Lost)
		}
	}
}

// events is what toolMonitor saw, by namespace.
type events map[string][]string

// TestQuiet watches with rtnetlink and nftables monitors of its own that, with nothing to do, nothing is done: the
// kernel reports no change in any of weft's namespaces, nor in the host's firewall and links, for 30 seconds.
func TestQuiet(t *testing.T) {
	w := sharedWorld(t)
	for _, flags := range [][]string{{"--encrypted"}, nil} {
		n := w.network(fmt.Sprintf("quiet-%d", len(flags)), flags...)
		w.endpoint("n1", n.Name, n.Name+"-a")
		w.endpoint("n2", n.Name, n.Name+"-b")
	}
	// A new bridge port tells of its state once more after the bridge's forward delay, 15 s (br_stp_timer.c).
	time.Sleep(17 * time.Second)
	before := w.status("n1").Reconcile
	r := w.start("n1", tool("monitor", "30s"))
	var seen events
	r.result(&seen)
	after := w.status("n1").Reconcile
	for ns, what := range seen {
		t.Errorf("%s: %d events: %v", ns, len(what), what[:min(5, len(what))])
	}
	if after.Applied != before.Applied || after.Passes <= before.Passes {
		t.Errorf("loop: %+v, 30 s later %+v: want more passes and nothing applied", before, after)
	}
	t.Logf("%d passes in 30 s, %d operations, no kernel event", after.Passes-before.Passes, after.Applied-before.Applied)
	// The monitor sees what it should: the same tool while an endpoint is attached.
	r = w.start("n1", tool("monitor", "2s"))
	time.Sleep(500 * time.Millisecond)
	w.endpoint("n1", "quiet-1", "quiet-late")
	seen = nil
	r.result(&seen)
	if len(seen) == 0 {
		t.Error("positive control: the monitor saw nothing of an attach")
	}
}

// toolMonitor DURATION listens to all kernel notifications in the host's and weft's namespaces.
func toolMonitor(args []string) (any, error) {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return nil, err
	}
	names, err := netns.Names()
	if err != nil {
		return nil, err
	}
	seen := events{}
	type source struct {
		ns, what string
		fd       int
	}
	var sources []source
	for _, ns := range append([]string{""}, names...) {
		if ns != "" && !strings.HasPrefix(ns, "weft-") {
			continue
		}
		err := netns.Do(ns, func() error {
			route, err := groupSocket(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR,
				unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE)
			if err != nil {
				return err
			}
			const nftablesGroup = 7 // NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h
			nft, err := groupSocket(unix.NETLINK_NETFILTER, nftablesGroup)
			sources = append(sources, source{ns, "rtnetlink", route}, source{ns, "nftables", nft})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	deadline := time.Now().Add(d)
	b := make([]byte, 1<<16)
	for time.Now().Before(deadline) {
		for _, s := range sources {
			n, _, err := unix.Recvfrom(s.fd, b, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) {
				continue
			}
			if err != nil {
				return nil, err
			}
			kind := uint16(b[4]) | uint16(b[5])<<8
			if s.ns == "" && (kind == unix.RTM_NEWNEIGH || kind == unix.RTM_DELNEIGH) {
				continue // the host's own ARP on its own interfaces
			}
			seen[s.ns] = append(seen[s.ns], fmt.Sprintf("%s message type %d, %d bytes", s.what, kind, n))
		}
		time.Sleep(5 * time.Millisecond)
	}
	return seen, nil
}

func groupSocket(family int, groups ...int) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return -1, os.NewSyscallError("bind", err)
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return -1, os.NewSyscallError("join group", err)
		}
	}
	return fd, nil
}
