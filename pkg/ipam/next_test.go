package ipam

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func prefix(s string) netip.Prefix {
	if s == "" {
		return netip.Prefix{}
	}
	return netip.MustParsePrefix(s)
}

func addr(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

func TestNext(t *testing.T) {
	for _, tc := range []struct {
		name, subnet, ipRange, gateway, after string
		taken                                 []string
		want                                  string // empty: none
	}{
		{name: "first", subnet: "10.0.1.0/24", gateway: "10.0.1.1", want: "10.0.1.2"},
		{name: "gateway elsewhere", subnet: "10.0.1.0/24", gateway: "10.0.1.254", want: "10.0.1.1"},
		{name: "serial", subnet: "10.0.1.0/24", gateway: "10.0.1.1", after: "10.0.1.7", want: "10.0.1.8"},
		{name: "wraps past broadcast", subnet: "10.0.1.0/24", gateway: "10.0.1.1", after: "10.0.1.254", want: "10.0.1.2"},
		{name: "after broadcast", subnet: "10.0.1.0/24", gateway: "10.0.1.1", after: "10.0.1.255", want: "10.0.1.2"},
		{name: "after outside", subnet: "10.0.1.0/24", gateway: "10.0.1.1", after: "10.0.2.9", want: "10.0.1.2"},
		{name: "passes taken", subnet: "10.0.1.0/24", gateway: "10.0.1.1", after: "10.0.1.2", taken: []string{"10.0.1.3", "10.0.1.4"}, want: "10.0.1.5"},
		{name: "may return after itself last", subnet: "10.0.1.0/30", gateway: "10.0.1.1", after: "10.0.1.2", want: "10.0.1.2"},
		{name: "full", subnet: "10.0.1.0/30", gateway: "10.0.1.1", taken: []string{"10.0.1.2"}},
		{name: "range", subnet: "10.0.1.0/24", ipRange: "10.0.1.128/26", gateway: "10.0.1.1", want: "10.0.1.128"},
		{name: "range wraps", subnet: "10.0.1.0/24", ipRange: "10.0.1.128/26", gateway: "10.0.1.1", after: "10.0.1.191", want: "10.0.1.128"},
		{name: "range at the end holds broadcast", subnet: "10.0.1.0/24", ipRange: "10.0.1.254/31", gateway: "10.0.1.1", after: "10.0.1.254", want: "10.0.1.254"},
		{name: "range outside", subnet: "10.0.1.0/24", ipRange: "10.0.2.0/25", gateway: "10.0.1.1"},
		{name: "range larger than subnet", subnet: "10.0.1.0/24", ipRange: "10.0.0.0/16", gateway: "10.0.1.1"},
		{name: "/31", subnet: "10.0.1.0/31", gateway: "10.0.1.1"},
		{name: "/32", subnet: "10.0.1.1/32", gateway: "10.0.1.1"},
		{name: "end of the address space", subnet: "255.255.255.0/24", gateway: "255.255.255.1", after: "255.255.255.254", want: "255.255.255.2"},
		{name: "not masked", subnet: "10.0.1.77/24", gateway: "10.0.1.1", want: "10.0.1.2"},
		{name: "IPv6", subnet: "fd00::/64", gateway: "fd00::1", want: "fd00::2"},
		{name: "no subnet"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			taken := map[netip.Addr]bool{}
			for _, a := range tc.taken {
				taken[addr(a)] = true
			}
			got, ok := Next(prefix(tc.subnet), prefix(tc.ipRange), addr(tc.gateway), func(a netip.Addr) bool { return taken[a] }, addr(tc.after))
			if got != addr(tc.want) || ok != (tc.want != "") {
				t.Errorf("Next is %v, %v; want %q", got, ok, tc.want)
			}
		})
	}
}

// The slow obvious twin: all assignable, free addresses in order, the first above `after`, else the first.
func TestNextAgainstObviousTwin(t *testing.T) {
	for range 2000 {
		subnet := netip.PrefixFrom(addr("10.1.2.0"), 26+rand.IntN(5)).Masked()
		gateway := addr("10.1.2.1")
		taken := map[netip.Addr]bool{}
		var free []netip.Addr
		for a := subnet.Addr(); subnet.Contains(a); a = a.Next() {
			taken[a] = rand.IntN(3) > 0
			if !taken[a] && Assignable(subnet, gateway, a) {
				free = append(free, a)
			}
		}
		after := netip.AddrFrom4([4]byte{10, 1, 2, byte(rand.IntN(64))})
		var want netip.Addr
		for _, a := range free {
			if !subnet.Contains(after) || a.Compare(after) > 0 {
				want = a
				break
			}
		}
		if !want.IsValid() && len(free) > 0 {
			want = free[0]
		}
		got, ok := Next(subnet, netip.Prefix{}, gateway, func(a netip.Addr) bool { return taken[a] }, after)
		if got != want || ok != (len(free) > 0) {
			t.Fatalf("Next(%v, after %v) with free %v is %v, want %v", subnet, after, free, got, want)
		}
	}
}

func TestUsable(t *testing.T) {
	for _, tc := range []struct {
		subnet, ipRange, gateway string
		want                     int
	}{
		{"10.0.1.0/24", "", "10.0.1.1", 253},
		{"10.0.1.0/24", "10.0.1.0/25", "10.0.1.1", 126},
		{"10.0.1.0/24", "10.0.1.64/26", "10.0.1.1", 64},
		{"10.0.1.0/30", "", "10.0.1.1", 1},
		{"10.0.1.0/31", "", "10.0.1.1", 0},
		{"10.0.1.0/32", "", "10.0.1.0", 0},
		{"10.0.0.0/8", "", "10.0.0.1", 1<<24 - 3},
		{"fd00::/64", "", "fd00::1", math.MaxInt},
		{"fd00::/120", "", "fd00::1", 254},
	} {
		if got := Usable(prefix(tc.subnet), prefix(tc.ipRange), addr(tc.gateway)); got != tc.want {
			t.Errorf("Usable(%s, %s, %s) is %d, want %d", tc.subnet, tc.ipRange, tc.gateway, got, tc.want)
		}
	}
}

func TestSpareTarget(t *testing.T) {
	for _, tc := range []struct {
		name                string
		r                   string
		usable, free, nodes int
		want                int
	}{
		{"empty /24, one node", "10.0.0.0/24", 253, 253, 1, 4},
		{"three nodes", "10.0.0.0/24", 253, 253, 3, 4},
		{"ten nodes", "10.0.0.0/24", 253, 253, 10, 3},
		{"forty nodes", "10.0.0.0/24", 253, 253, 40, 0},
		{"no node is one", "10.0.0.0/24", 253, 253, 0, 4},
		{"just 20 % free", "10.0.0.0/24", 253, 51, 1, 4},
		{"below 20 % free", "10.0.0.0/24", 253, 49, 1, 0},
		{"/26", "10.0.0.0/26", 61, 61, 1, 4},
		{"below /26", "10.0.0.0/27", 29, 29, 1, 0},
		{"none", "", 0, 0, 1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := SpareTarget(prefix(tc.r), tc.usable, tc.free, tc.nodes); got != tc.want {
				t.Errorf("target is %d, want %d", got, tc.want)
			}
		})
	}
}
