package ipam

import (
	"math"
	"net/netip"
)

// Next returns the first address after `after` that may be given to an endpoint: inside ipRange (the zero Prefix
// means all of subnet), not the network, broadcast or gateway address, and not taken. It wraps at the end of the
// range; an `after` outside the range, or invalid, starts at its beginning. False means that there is none.
func Next(subnet, ipRange netip.Prefix, gateway netip.Addr, taken func(netip.Addr) bool, after netip.Addr) (netip.Addr, bool) {
	r := allocRange(subnet, ipRange)
	if !r.IsValid() {
		return netip.Addr{}, false
	}
	first := r.Masked().Addr()
	start := first
	if r.Contains(after) {
		if start = after.Next(); !r.Contains(start) {
			start = first
		}
	}
	for a := start; ; {
		if Assignable(subnet, gateway, a) && !taken(a) {
			return a, true
		}
		if a = a.Next(); !r.Contains(a) {
			a = first
		}
		if a == start {
			return netip.Addr{}, false
		}
	}
}

// Assignable reports whether an endpoint may have a at all: inside the subnet and neither its network nor its
// broadcast address (IPv6: the subnet-router anycast address, RFC 4291 section 2.6.1) nor the gateway.
func Assignable(subnet netip.Prefix, gateway, a netip.Addr) bool {
	return subnet.IsValid() && subnet.Contains(a) && a != gateway && a != subnet.Masked().Addr() && a != broadcast(subnet)
}

// Usable counts the addresses that Next can return when none is taken; at most math.MaxInt.
func Usable(subnet, ipRange netip.Prefix, gateway netip.Addr) int {
	r := allocRange(subnet, ipRange)
	if !r.IsValid() {
		return 0
	}
	host := r.Addr().BitLen() - r.Bits()
	if host > 62 {
		return math.MaxInt
	}
	n := 1 << host
	special := map[netip.Addr]bool{gateway: true, subnet.Masked().Addr(): true, broadcast(subnet): true}
	for a := range special {
		if r.Contains(a) {
			n--
		}
	}
	return n
}

// allocRange is where addresses are looked for, the zero Prefix when there is no such place.
func allocRange(subnet, ipRange netip.Prefix) netip.Prefix {
	switch {
	case !subnet.IsValid():
		return netip.Prefix{}
	case !ipRange.IsValid():
		return subnet
	case ipRange.Bits() < subnet.Bits() || !subnet.Contains(ipRange.Addr()):
		return netip.Prefix{}
	}
	return ipRange
}

// broadcast is the last address of an IPv4 subnet, the zero Addr for IPv6, which has none.
func broadcast(subnet netip.Prefix) netip.Addr {
	if !subnet.Addr().Is4() {
		return netip.Addr{}
	}
	b := subnet.Masked().Addr().As4()
	for i := subnet.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

const (
	maxSpares = 4
	// smallest is the longest prefix that is worth spares: below it a few nodes' spares are most of the network.
	smallest = 26
)

// SpareTarget is how many spare leases a node keeps: min(4, free/(8 x nodes)), none when fewer than 20 % are free or
// the range is smaller than a /26. free counts the addresses nobody uses, spares included.
func SpareTarget(r netip.Prefix, usable, free, nodes int) int {
	if !r.IsValid() || r.Addr().BitLen()-r.Bits() < 32-smallest || free < usable/5 {
		return 0
	}
	return min(maxSpares, free/(8*max(nodes, 1)))
}
