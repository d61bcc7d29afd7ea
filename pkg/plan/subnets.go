package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"weft/pkg/overlay"
)

// Overlaps names the live networks of a snapshot that share addresses with p, sorted. The networks called except are
// passed over.
func Overlaps(p netip.Prefix, s *overlay.Snapshot, except ...string) []string {
	var out []string
	for name, n := range s.Networks {
		if n.Alive() && !slices.Contains(except, name) && slices.ContainsFunc(n.Subnets, p.Overlaps) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// widest returns the IPv4 prefixes of in, masked and sorted, without those that another one contains: the elements of
// an interval set must not overlap.
func widest(in []netip.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range in {
		if p.IsValid() && p.Addr().Is4() {
			all = append(all, p.Masked())
		}
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []netip.Prefix
	for _, p := range all {
		// Prefixes nest or are apart, and a container sorts before what it contains: the last kept one decides.
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}
