package kernel

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/pkg/kstate"
)

// HostRoutes returns the IPv4 destinations of the host's routes, default routes left out: what a subnet or an egress leg
// must not collide with. Routes over weft's own legs are left out as well.
func (k *Kernel) HostRoutes() ([]netip.Prefix, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	sp, err := k.spaces.get(kstate.Host)
	if err != nil {
		return nil, fmt.Errorf("read host routes: %w", err)
	}
	routes, err := dump(context.Background(), func() ([]netlink.Route, error) { return sp.nl.RouteList(nil, unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("read host routes: %w", err)
	}
	links, err := dump(context.Background(), sp.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("read host links: %w", err)
	}
	ours := map[int]bool{}
	for _, l := range links {
		ours[l.Attrs().Index] = len(l.Attrs().Name) > len(kstate.LegPrefix) && l.Attrs().Name[:len(kstate.LegPrefix)] == kstate.LegPrefix
	}
	var out []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil || ours[r.LinkIndex] {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		if ok && bits > 0 {
			out = append(out, netip.PrefixFrom(a.Unmap(), bits))
		}
	}
	return out, nil
}
