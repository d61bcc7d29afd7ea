package kernel

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/plan"
)

// sh runs a command line in a namespace, "" for the host's.
func sh(t testing.TB, ns, line string) string {
	t.Helper()
	out, err := shErr(ns, line)
	if err != nil {
		t.Fatalf("in %q: %s: %v\n%s", ns, line, err, out)
	}
	return out
}

func shErr(ns, line string) (string, error) {
	var out []byte
	err := netns.Do(ns, func() error {
		var err error
		out, err = exec.Command("sh", "-ec", line).CombinedOutput()
		return err
	})
	return string(out), err
}

// eventually makes passes until nothing is left to do: one is not enough while the kernel still deletes a namespace.
func (w *world) eventually() {
	w.t.Helper()
	for range 50 {
		want := w.want()
		ops := plan.Diff(want, w.observe(want))
		if len(ops) == 0 {
			w.check(want)
			return
		}
		for _, op := range ops {
			if err := w.Apply(context.Background(), op); err != nil {
				w.t.Logf("to be repeated: %v", err)
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.converge()
}

// TestDrift breaks one thing at a time by hand, with other programs, and expects it to be seen and mended.
func TestDrift(t *testing.T) {
	w := newWorld(t)
	net1 := w.network(1, false, 2)
	net2 := w.network(2, true, 1)
	w.converge()
	n1, n2 := kstate.NetworkNS(net1.ID), kstate.NetworkNS(net2.ID)
	e1 := w.in.Local[0]
	port, epns := kstate.EndpointLink(e1.ID), e1.NetNS
	remote := mac(1, 2, 1).String()
	for name, c := range map[string]struct {
		ns, line string
		seen     string // in the operations that mend it
	}{
		"fdb self":             {n1, "bridge fdb del " + remote + " dev vxlan0 dst 192.0.2.2 self", "fdb " + remote + " dev vxlan0 self"},
		"fdb self elsewhere":   {n1, "bridge fdb replace " + remote + " dev vxlan0 dst 192.0.2.9 self", "set " + n1 + " fdb " + remote},
		"fdb master":           {n1, "bridge fdb del " + remote + " dev vxlan0 master", "fdb " + remote + " dev vxlan0 master"},
		"fdb of an endpoint":   {n1, "bridge fdb del " + e1.MAC.String() + " dev " + port + " master", "fdb " + e1.MAC.String()},
		"stray fdb":            {n1, "bridge fdb append 02:aa:aa:aa:aa:aa dev vxlan0 dst 192.0.2.2 self permanent", "remove " + n1 + " fdb 02:aa"},
		"neighbour":            {n1, "ip neigh del 10.0.1.102 dev br0", "add " + n1 + " neigh 10.0.1.102"},
		"neighbour's address":  {n1, "ip neigh replace 10.0.1.102 lladdr 02:00:00:00:00:09 dev br0 nud permanent", "set " + n1 + " neigh 10.0.1.102"},
		"stray neighbour":      {n1, "ip neigh add 10.0.1.77 lladdr 02:00:00:00:00:09 dev br0 nud permanent", "remove " + n1 + " neigh 10.0.1.77"},
		"gateway address":      {n1, "ip addr del 10.0.1.1/24 dev br0", "add " + n1 + " addr 10.0.1.1/24"},
		"router address":       {n1, "ip -6 addr flush dev br0", "addr fe80::"},
		"stray address":        {n1, "ip addr add 10.9.9.9/24 dev br0", "remove " + n1 + " addr 10.9.9.9/24"},
		"endpoint's address":   {epns, "ip addr flush dev eth0", "add " + epns + " addr"},
		"endpoint's route":     {epns, "ip route del default", "add " + epns + " route 0.0.0.0/0"},
		"endpoint down":        {epns, "ip link set eth0 down", "add " + epns + " up eth0"},
		"endpoint's MAC":       {epns, "ip link set eth0 address 02:00:00:00:00:07", "set " + n1 + " link " + port},
		"endpoint's MTU":       {epns, "ip link set eth0 mtu 1300", "set " + n1 + " link " + port},
		"endpoint's alias":     {epns, "ip link set eth0 alias other", "set " + n1 + " link " + port},
		"bridge membership":    {n1, "ip link set " + port + " nomaster", "add " + n1 + " port " + port},
		"port flags":           {n1, "bridge link set dev " + port + " learning on flood on locked off", "set " + n1 + " port " + port},
		"port down":            {n1, "ip link set " + port + " down", "add " + n1 + " up " + port},
		"veth":                 {n1, "ip link del " + port, "add " + n1 + " link " + port},
		"veth from inside":     {epns, "ip link del eth0", "add " + n1 + " link " + port},
		"vxlan":                {n1, "ip link del vxlan0", "add " + n1 + " link vxlan0"},
		"vxlan of wrong kind":  {n1, "ip link del vxlan0; ip link add vxlan0 type bridge", "remove " + n1 + " link vxlan0 bridge"},
		"stray link":           {n1, "ip link add stray0 type bridge", "remove " + n1 + " link stray0"},
		"bridge":               {n1, "ip link del br0", "add " + n1 + " link br0"},
		"bridge's MAC":         {n1, "ip link set br0 address 02:00:00:00:00:08", "set " + n1 + " link br0"},
		"leg":                  {"", "ip link del " + kstate.LegName(net1.ID), "add " + n1 + " link egress0"},
		"leg's address":        {"", "ip addr flush dev " + kstate.LegName(net1.ID), "addr 169.254.64.2/31"},
		"leg's route":          {n1, "ip route del default", "add " + n1 + " route 0.0.0.0/0"},
		"transit route":        {kstate.Transit, "ip route del 100.64.0.2", "add weft-t route 100.64.0.2/32"},
		"transit address":      {kstate.Transit, "ip addr del 100.64.0.1/32 dev lo", "add weft-t addr 100.64.0.1/32"},
		"stray route":          {kstate.Transit, "ip route add 198.51.100.0/24 dev lo", "remove weft-t route 198.51.100.0/24"},
		"host table":           {"", "nft delete table inet weft", "table inet weft"},
		"host chain":           {"", "nft flush chain inet weft forward; nft delete chain inet weft forward", "chain inet forward"},
		"host rules":           {"", "nft flush chain inet weft input", "set (host) chain inet input"},
		"host policy":          {kstate.Transit, "nft chain inet weft input '{ policy accept; }'", "set weft-t chain inet input"},
		"stray rule":           {"", "nft insert rule inet weft input accept", "set (host) chain inet input"},
		"rule whose text lies": {n1, "nft insert rule bridge weft prerouting accept comment '\"counter spoofed drop\"'", "set " + n1 + " chain bridge prerouting"},
		"stray chain":          {"", "nft add chain inet weft extra", "remove (host) chain inet extra"},
		"member":               {"", "nft flush set inet weft members", "elem inet @members"},
		"stray subnet":         {"", "nft add element inet weft subnets '{ 198.51.100.0/24 }'", "remove (host) elem inet @subnets { 198.51.100.0/24 }"},
		"subnet range":         {"", "nft add element inet weft subnets '{ 198.51.100.3-198.51.100.9 }'", "remove (host) elem inet @subnets { 198.51.100.3-198.51.100.9 }"},
		"stray set":            {"", "nft add set inet weft extra '{ type ipv4_addr; }'", "remove (host) set inet extra"},
		"sysctl":               {n1, "echo 0 > /proc/sys/net/ipv4/ip_forward", "set " + n1 + " sysctl net/ipv4/ip_forward=1"},
		"WireGuard link":       {kstate.Transit, "ip link del weftwg0", "add weft-t link weftwg0"},
		"network's namespace":  {"", "umount /run/netns/" + n2 + " && rm /run/netns/" + n2, "add " + n2 + " netns"},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			want := w.want()
			sh(t, c.ns, c.line)
			ops := plan.Diff(want, w.observe(want))
			var text []string
			for _, op := range ops {
				text = append(text, op.String())
			}
			if !strings.Contains(strings.Join(text, "\n"), c.seen) {
				t.Errorf("seen:\n%s\nwant %q", strings.Join(text, "\n"), c.seen)
			}
			w.eventually()
		})
	}
	w.t = t
}
