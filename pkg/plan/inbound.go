package plan

import (
	"net/netip"
	"slices"

	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

// Host routes: the way from the host to an endpoint, where an attach asks for one. Networks may overlap in addresses,
// so it is a route of one address only, over the egress leg, and the first network that wants an address has it.
//
//	host        10.0.0.5/32 via 169.254.64.1 dev weftx…      what the host sends, and what portmap redirects
//	weft-n-<id> egress0 -> br0, this address only
//	endpoint    answers go to its gateway, hence its default route must be this network's
//
// Others than the host get through it only by a redirection (ct status dnat) that the host's operator or his container
// runtime has made: a route alone opens nothing to the host's neighbours.

const inboundSet = "inbound"

// resolveInbound finds out which endpoints have a host route.
func (b *builder) resolveInbound() {
	taken := map[netip.Addr]string{}
	for _, s := range b.segments {
		for _, e := range s.local {
			if !e.HostRoute {
				continue
			}
			subject := "endpoint " + string(e.ID)
			switch other, dup := taken[e.Address]; {
			case !s.legged():
				b.problem(subject, "the host has no route to it, because network %s has no egress here: use a network that is not internal", s.Name)
			case dup:
				b.problem(subject, "the host has no route to it, because %s is that of an endpoint on network %s: choose another address", e.Address, other)
			case !s.gateway() || !b.routes(s, e):
				b.problem(subject, "the host has no route to it, because its namespace has its default route on another network: "+
					"answers would not come back")
			default:
				taken[e.Address] = s.Name
				s.inbound = append(s.inbound, e.Address)
			}
		}
	}
}

// inbound says whether there are host routes; a frozen network's stay, so what they need on the host stays too.
func (b *builder) inbound() bool {
	return b.frozenInbound || slices.ContainsFunc(b.segments, func(s *segment) bool { return len(s.inbound) > 0 })
}

// hostInbound puts the host's part, and returns the rules that precede the fences around the legs.
func (b *builder) hostInbound(put func(kstate.Item)) (input, forward string) {
	if !b.inbound() {
		return "", ""
	}
	put(kstate.NFSet{Family: kstate.Inet, Name: inboundSet, Type: "ipv4_addr"})
	for _, s := range b.segments {
		for _, a := range s.inbound {
			b.want.Put(s.id(), kstate.Elem{Family: kstate.Inet, Set: inboundSet, Value: a.String()})
			b.want.Put(s.id(), kstate.Route{NS: kstate.Host, Dst: netip.PrefixFrom(a, a.BitLen()), Link: kstate.LegName(s.ID), Via: s.leg.Network})
		}
	}
	return "iifname " + legs + " ip saddr @" + inboundSet + " ct state established,related accept",
		"oifname " + legs + " ip daddr @" + inboundSet + " ct status dnat accept"
}

// networkInbound puts the network's part, and returns its rule.
func networkInbound(s *segment, put func(kstate.Item)) string {
	if len(s.inbound) == 0 {
		return ""
	}
	put(kstate.NFSet{NS: s.ns(), Family: kstate.Inet, Name: inboundSet, Type: "ipv4_addr"})
	for _, a := range s.inbound {
		put(kstate.Elem{NS: s.ns(), Family: kstate.Inet, Set: inboundSet, Value: a.String()})
	}
	return "iifname " + kstate.LegInside + " oifname " + kstate.Bridge + " ip daddr @" + inboundSet + " accept"
}

// freezeInbound notes what must stay of a frozen network.
func (b *builder) freezeInbound(e overlay.LocalEndpoint) {
	b.frozenInbound = b.frozenInbound || e.HostRoute
}
