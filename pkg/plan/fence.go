package plan

import (
	"weft/pkg/kstate"
)

// bridgeFence puts the source rules of a network's bridge: an endpoint speaks only as itself. The bridge's locked ports
// hold the MAC; without these rules an endpoint could still pose as another one's address. IPv6 has no addresses yet,
// so it is dropped rather than left unchecked. What comes from vxlan0 was checked where it was sent.
func bridgeFence(s *segment, put func(kstate.Item)) {
	ns, f := s.ns(), kstate.BridgeFamily
	put(kstate.Table{NS: ns, Family: f})
	put(kstate.NFSet{NS: ns, Family: f, Name: "src4", Type: "ifname . ether_addr . ipv4_addr"})
	put(kstate.NFSet{NS: ns, Family: f, Name: "srcmac", Type: "ifname . ether_addr"})
	for _, e := range s.local {
		who := kstate.EndpointLink(e.ID) + " . " + e.MAC.String()
		put(kstate.Elem{NS: ns, Family: f, Set: "src4", Value: who + " . " + e.Address.String()})
		put(kstate.Elem{NS: ns, Family: f, Set: "srcmac", Value: who})
	}
	put(filter(ns, f, "prerouting", -300, "accept",
		"iifname vxlan0 accept",
		"ether type arp iifname . arp saddr ether . arp saddr ip @src4 accept",
		// A probe for a duplicate address has no sender address (RFC 5227 section 2.1.1).
		"ether type arp iifname . ether saddr @srcmac arp saddr ip 0.0.0.0 accept",
		"ether type ip iifname . ether saddr . ip saddr @src4 accept",
		"ether type ip6 counter endpoint_ipv6 drop",
		"counter spoofed drop"))
	// Every node has the gateway's address: an answer to it would land on the far node's own.
	put(filter(ns, f, "output", 0, "accept",
		"oifname vxlan0 ether type arp counter gateway_overlay drop",
		"oifname vxlan0 ether type ip counter gateway_overlay drop"))
}

// routerFence puts what a network's namespace routes: endpoints out through the leg, and answers back.
func routerFence(s *segment, put func(kstate.Item)) {
	ns, f := s.ns(), kstate.Inet
	put(kstate.Table{NS: ns, Family: f})
	put(filter(ns, f, "input", 0, "accept",
		"iifname egress0 ct state established,related accept",
		"iifname egress0 counter leg_unsolicited drop"))
	put(filter(ns, f, "forward", 0, "drop",
		"iifname br0 oifname egress0 accept",
		"iifname egress0 oifname br0 ct state established,related accept",
		networkInbound(s, put),
		"counter routed drop"))
	if s.legged() {
		put(chain(ns, f, "postrouting", "nat", "postrouting", 100, "accept",
			"oifname egress0 snat to "+s.leg.Network.String()))
	}
}
