package plan

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

const legs = kstate.LegPrefix + "*"

// host puts what the host's namespace holds for all networks: the fence around plain VXLAN, the walls around the egress
// legs, and masquerade for them.
func (b *builder) host() {
	put := func(it kstate.Item) { b.want.Put("", it) }
	put(kstate.Table{Family: kstate.Inet})
	for name, typ := range map[string]string{
		"members": typeMembers, "vnis": "vni", "nodes": "ipv4_addr", "subnets": typeInterval,
	} {
		put(kstate.NFSet{Family: kstate.Inet, Name: name, Type: typ})
	}
	for _, a := range b.nodeAddrs() {
		put(kstate.Elem{Family: kstate.Inet, Set: "nodes", Value: a.String()})
	}
	vnis, subnets := b.ranges()
	for v := range vnis {
		put(kstate.Elem{Family: kstate.Inet, Set: "vnis", Value: strconv.FormatUint(uint64(v), 10)})
	}
	for _, p := range widest(subnets) {
		put(kstate.Elem{Family: kstate.Inet, Set: "subnets", Value: p.String()})
	}
	b.hostChains(put)
	if b.egress() {
		put(kstate.Sysctl{Path: "net/ipv4/ip_forward", Value: "1"})
		for _, chain := range b.self.ForwardHooks {
			put(kstate.ForeignRule{Chain: chain, Rule: "iifname " + legs + " accept"})
			put(kstate.ForeignRule{Chain: chain, Rule: "oifname " + legs + " accept"})
		}
	}
}

// hostChains puts the rules. Weft's chains run before other programs' (priority -10), accept by default, and drop only
// what concerns VNIs, nodes and legs of weft: a port shared with somebody else's VXLAN keeps working.
func (b *builder) hostChains(put func(kstate.Item)) {
	port := strconv.Itoa(int(b.self.VXLANPort))
	dport := "udp dport " + port
	wg := make([]string, 0, len(b.self.WGPorts))
	for _, p := range b.self.WGPorts {
		wg = append(wg, strconv.Itoa(int(p)))
	}
	answers, redirected := b.hostInbound(put)
	toPool, wgToNodes := "", ""
	if b.self.EgressPool.IsValid() {
		toPool = "iifname " + legs + " ip daddr " + b.self.EgressPool.String() + " counter leg_in drop"
		put(chain("", kstate.Inet, "postrouting", "nat", "postrouting", 100, "accept",
			"ip saddr "+b.self.EgressPool.String()+" oifname != "+legs+" masquerade"))
	}
	if len(wg) > 0 {
		wgToNodes = "iifname " + legs + " udp dport { " + strings.Join(wg, ", ") + " } ip daddr @nodes counter leg_ports drop"
	}
	// The kernel's VXLAN socket listens on every address of the host: broadcast, multicast and secondary addresses are
	// ways around rules that only know the advertised ones, so a member's packet must be for exactly that one.
	elsewhere := ""
	if b.self.Underlay.Is4() {
		elsewhere = dport + " ip daddr != " + b.self.Underlay.String() + " vni @vnis counter vxlan_in drop"
	}
	put(filter("", kstate.Inet, "input", -10, "accept",
		elsewhere,
		dport+" ip saddr . vni @members accept",
		dport+" vni @vnis counter vxlan_in drop",
		answers,
		toPool,
		"iifname "+legs+" udp dport { "+strings.Join(append([]string{port}, wg...), ", ")+" } counter leg_ports drop"))
	put(filter("", kstate.Inet, "forward", -10, "accept",
		dport+" ip daddr @nodes counter vxlan_forward drop",
		dport+" vni @vnis counter vxlan_forward drop",
		"iifname "+legs+" oifname "+legs+" counter leg_to_leg drop",
		"iifname "+legs+" ip daddr @subnets counter leg_to_subnet drop",
		wgToNodes,
		"iifname "+legs+" accept",
		"oifname "+legs+" ct state established,related accept",
		redirected,
		"oifname "+legs+" counter leg_unsolicited drop"))
	// The kernel's own VXLAN has no socket owner; a process that sends to the port does.
	put(filter("", kstate.Inet, "output", 0, "accept",
		dport+" ip daddr @nodes skuid counter vxlan_out drop",
		dport+" vni @vnis skuid counter vxlan_out drop"))
}

// nodeAddrs is every IPv4 underlay address of every present node, conflicts or not: it only ever forbids.
func (b *builder) nodeAddrs() []netip.Addr {
	addrs := []netip.Addr{b.self.Underlay}
	for name, n := range b.snap.Nodes {
		if n.Present() || name == b.self.Node {
			addrs = append(addrs, n.Underlay...)
		}
	}
	return slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !a.Is4() })
}

// ranges returns the VNIs and subnets of all live networks, and of those that are built here although deleted.
func (b *builder) ranges() (vnis map[overlay.VNI]bool, subnets []netip.Prefix) {
	vnis = map[overlay.VNI]bool{}
	add := func(n overlay.Network) {
		if n.VNI != 0 && n.VNI <= overlay.MaxVNI {
			vnis[n.VNI] = true
		}
		subnets = append(subnets, n.Subnets...)
	}
	for n := range maps.Values(b.snap.Networks) {
		if n.Alive() {
			add(n)
		}
	}
	for _, s := range b.segments {
		add(s.Network)
	}
	return vnis, subnets
}

// egress says whether a leg is wanted. A frozen network's leg stays, so what it needs on the host stays too.
func (b *builder) egress() bool {
	return slices.ContainsFunc(b.segments, (*segment).legged) ||
		slices.ContainsFunc(b.frozen, func(id overlay.NetworkID) bool { _, ok := b.self.Legs[id]; return ok })
}

func filter(ns string, f kstate.Family, hook string, priority int, policy string, rules ...string) kstate.Chain {
	return chain(ns, f, hook, "filter", hook, priority, policy, rules...)
}

// chain makes a chain of the rules that are not empty.
func chain(ns string, f kstate.Family, name, typ, hook string, priority int, policy string, rules ...string) kstate.Chain {
	rules = slices.DeleteFunc(rules, func(r string) bool { return r == "" })
	return kstate.Chain{NS: ns, Family: f, Name: name, Type: typ, Hook: hook, Priority: priority, Policy: policy,
		Rules: strings.Join(rules, "\n")}
}
