package kernel

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/pkg/kstate"
)

// TestRulesMeanWhatTheySay shows each kind of rule as nft(8) decodes the expressions, which it does without looking at
// the comment. It leaves out a match of the protocol that a later one implies.
func TestRulesMeanWhatTheySay(t *testing.T) {
	w := newWorld(t)
	sets := map[kstate.Family]map[string]string{
		kstate.Inet:         {"members": "ipv4_addr . vni", "vnis": "vni", "nodes": "ipv4_addr", "subnets": "ipv4_net"},
		kstate.BridgeFamily: {"src4": "ifname . ether_addr . ipv4_addr", "srcmac": "ifname . ether_addr"},
	}
	const ns = kstate.Transit
	w.apply(kstate.Add, kstate.NetNS{Name: ns})
	for family, m := range sets {
		for name, typ := range m {
			w.apply(kstate.Add, kstate.NFSet{NS: ns, Family: family, Name: name, Type: typ})
		}
	}
	for _, c := range []struct {
		family     kstate.Family
		hook, kind string
		rule, want string
	}{
		{kstate.Inet, "input", "filter", "iifname lo accept", `iifname "lo" accept`},
		{kstate.Inet, "input", "filter", "iifname weftx* drop", `iifname "weftx*" drop`},
		{kstate.Inet, "forward", "filter", "oifname != weftx* accept", `oifname != "weftx*" accept`},
		{kstate.Inet, "forward", "filter", "iifname br0 oifname != egress0 drop", `iifname "br0" oifname != "egress0" drop`},
		{kstate.Inet, "input", "filter", "ip saddr 10.0.0.1 ip daddr 10.0.0.0/12 drop", "ip saddr 10.0.0.1 ip daddr 10.0.0.0/12 drop"},
		{kstate.Inet, "input", "filter", "ip daddr != 10.0.0.1 drop", "ip daddr != 10.0.0.1 drop"},
		{kstate.Inet, "input", "filter", "ip saddr @nodes drop", "ip saddr @nodes drop"},
		{kstate.Inet, "input", "filter", "ip daddr @subnets drop", "ip daddr @subnets drop"},
		{kstate.Inet, "input", "filter", "icmp accept", "meta l4proto icmp accept"},
		{kstate.Inet, "input", "filter", "icmpv6 accept", "meta l4proto ipv6-icmp accept"},
		{kstate.Inet, "input", "filter", "udp dport 4789 drop", "udp dport 4789 drop"},
		{kstate.Inet, "input", "filter", "udp dport { 4789, 51820 } drop", "udp dport { 4789, 51820 } drop"},
		{kstate.Inet, "input", "filter", "udp dport 4789 vni @vnis drop", "udp dport 4789 @th,96,24 @vnis drop"},
		{kstate.Inet, "input", "filter", "udp dport 4789 ip saddr . vni @members accept", "udp dport 4789 ip saddr . @th,96,24 @members accept"},
		{kstate.Inet, "output", "filter", "udp dport 4789 ip daddr @nodes skuid counter vxlan_out drop", `udp dport 4789 ip daddr @nodes meta skuid >= 0 counter name "vxlan_out" drop`},
		{kstate.Inet, "forward", "filter", "ct state established,related accept", "ct state established,related accept"},
		{kstate.Inet, "forward", "filter", "ct status dnat accept", "ct status dnat accept"},
		{kstate.Inet, "postrouting", "nat", "ip saddr 169.254.64.0/18 oifname != weftx* masquerade", `ip saddr 169.254.64.0/18 oifname != "weftx*" masquerade`},
		{kstate.Inet, "postrouting", "nat", "oifname egress0 snat to 169.254.64.3", `oifname "egress0" meta nfproto ipv4 snat ip to 169.254.64.3`},
		{kstate.BridgeFamily, "prerouting", "filter", "ether type arp iifname . arp saddr ether . arp saddr ip @src4 accept", "iifname . arp saddr ether . arp saddr ip @src4 accept"},
		{kstate.BridgeFamily, "prerouting", "filter", "ether type arp iifname . ether saddr @srcmac arp saddr ip 0.0.0.0 accept", "iifname . ether saddr @srcmac arp saddr ip 0.0.0.0 accept"},
		{kstate.BridgeFamily, "prerouting", "filter", "ether type ip iifname . ether saddr . ip saddr @src4 accept", "iifname . ether saddr . ip saddr @src4 accept"},
		{kstate.BridgeFamily, "prerouting", "filter", "ip saddr 10.0.0.1 drop", "ip saddr 10.0.0.1 drop"},
		{kstate.BridgeFamily, "prerouting", "filter", "ether type ip6 counter endpoint_ipv6 drop", `meta protocol ip6 counter name "endpoint_ipv6" drop`},
	} {
		t.Run(c.rule, func(t *testing.T) {
			w.t = t
			defer func() { w.t = nil }()
			chain := kstate.Chain{NS: ns, Family: c.family, Name: "x", Type: c.kind, Hook: c.hook, Policy: "accept", Rules: c.rule}
			w.apply(kstate.Add, chain)
			defer w.apply(kstate.Remove, chain)
			got := sh(t, ns, "nft list chain "+string(c.family)+" weft x")
			line := ""
			for l := range strings.Lines(got) {
				if before, _, ok := strings.Cut(l, " comment "); ok {
					line = strings.TrimSpace(before)
				}
			}
			if diff := cmp.Diff(c.want, line); diff != "" {
				t.Errorf("rule as nft shows it (-want +got):\n%s", diff)
			}
			have := w.observe(nil).Entries[chain.Key()].Item
			if diff := cmp.Diff(chain.String(), have.String()); diff != "" {
				t.Errorf("chain (-want +got):\n%s", diff)
			}
		})
	}
	w.t = t
	for _, e := range []kstate.Elem{
		{NS: ns, Family: kstate.Inet, Set: "members", Value: "192.0.2.1 . 8388609"},
		{NS: ns, Family: kstate.Inet, Set: "vnis", Value: "8388609"},
		{NS: ns, Family: kstate.Inet, Set: "nodes", Value: "192.0.2.7"},
		{NS: ns, Family: kstate.Inet, Set: "subnets", Value: "10.0.0.0/8"},
		{NS: ns, Family: kstate.BridgeFamily, Set: "src4", Value: "eabcdef . 02:00:00:00:00:01 . 10.0.0.5"},
	} {
		w.apply(kstate.Add, e)
	}
	if out := sh(t, ns, "nft list ruleset"); !strings.Contains(out, `"eabcdef" . 02:00:00:00:00:01 . 10.0.0.5`) || !strings.Contains(out, "10.0.0.0/8") {
		t.Errorf("elements are not there:\n%s", out)
	}
}

func TestCountersSurviveNewRules(t *testing.T) {
	w := newWorld(t)
	w.apply(kstate.Add, kstate.NetNS{Name: kstate.Transit})
	w.apply(kstate.Add, kstate.Up{NS: kstate.Transit, Link: "lo"})
	c := kstate.Chain{NS: kstate.Transit, Family: kstate.Inet, Name: "input", Type: "filter", Hook: "input", Policy: "accept",
		Rules: "udp dport 9 counter seen drop"}
	w.apply(kstate.Add, c)
	sh(t, kstate.Transit, "echo x > /dev/udp/127.0.0.1/9 || bash -c 'echo x > /dev/udp/127.0.0.1/9'")
	seen := func() uint64 {
		m, err := w.Counters(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return m["seen"]
	}
	if got := seen(); got != 1 {
		t.Fatalf("counter is %d, want 1", got)
	}
	c.Rules = "udp dport { 9, 10 } counter seen drop\ncounter other accept"
	w.apply(kstate.Set, c)
	if got := seen(); got != 1 {
		t.Errorf("counter is %d after the rules changed, want 1", got)
	}
	c.Policy = "drop"
	w.apply(kstate.Set, c)
	if got := w.observe(nil).Entries[c.Key()].Item; got != kstate.Item(c) {
		t.Errorf("got %s, want %s", got, c)
	}
}

// TestForeignRule puts the rules into a chain of iptables' and lets iptables show it.
func TestForeignRule(t *testing.T) {
	w := newWorld(t)
	if _, err := exec.LookPath("iptables-nft"); err != nil {
		t.Skip("needs iptables-nft")
	}
	ctx := context.Background()
	hooks := func() string {
		h, err := w.ForwardHooks(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(h, " ")
	}
	blocked := func() string {
		s, err := w.ForwardBlocked(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Cleanup(func() {
		_, _ = shErr("", "nft delete table ip filter; nft delete table inet other")
	})
	if hooks() != "" || blocked() != "" {
		t.Fatal("something where nothing is")
	}
	sh(t, "", "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -s 192.0.2.0/24 -j ACCEPT")
	sh(t, "", "iptables-nft -A FORWARD -m conntrack --ctstate ESTABLISHED -m addrtype --dst-type LOCAL -m limit --limit 5/s -j RETURN")
	if got := hooks(); got != "FORWARD" {
		t.Errorf("hooks %q, want FORWARD", got)
	}
	in := kstate.ForeignRule{Chain: "FORWARD", Rule: "iifname weftx* accept"}
	out := kstate.ForeignRule{Chain: "FORWARD", Rule: "oifname weftx* accept"}
	for range 2 {
		w.apply(kstate.Add, in)
		w.apply(kstate.Add, out)
	}
	want := `-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-A FORWARD -o weftx+ -m comment --comment "weft: oifname weftx* accept" -j ACCEPT
-A FORWARD -i weftx+ -m comment --comment "weft: iifname weftx* accept" -j ACCEPT
-A FORWARD -s 192.0.2.0/24 -j ACCEPT
-A FORWARD -m conntrack --ctstate ESTABLISHED -m addrtype --dst-type LOCAL -m limit --limit 5/sec -j RETURN
`
	if diff := cmp.Diff(want, sh(t, "", "iptables-nft -S")); diff != "" {
		t.Errorf("iptables -S (-want +got):\n%s", diff)
	}
	st := w.observe(nil)
	if !st.Has(in.Key()) || !st.Has(out.Key()) || len(st.Entries) != 2 {
		t.Errorf("observed:\n%s", st)
	}
	sh(t, "", "nft insert rule ip filter FORWARD drop comment '\"weft: iifname weftx* accept\"'")
	if st := w.observe(nil); len(st.Entries) != 3 {
		t.Errorf("a rule that lies must show as another one:\n%s", st)
	}
	for _, e := range w.observe(nil).Entries {
		w.apply(kstate.Remove, e.Item)
	}
	if got := sh(t, "", "iptables-nft -S FORWARD"); strings.Contains(got, "weft") || !strings.Contains(got, "192.0.2.0/24") {
		t.Errorf("after removal:\n%s", got)
	}
	sh(t, "", "iptables-nft -N DOCKER-USER")
	if got := hooks(); got != "DOCKER-USER" {
		t.Errorf("hooks %q, want DOCKER-USER", got)
	}
	sh(t, "", "nft add table inet other; nft add chain inet other forwards '{ type filter hook forward priority 0; policy drop; }'")
	if got := blocked(); got != "chain forwards of table inet other" {
		t.Errorf("blocked by %q", got)
	}
}
