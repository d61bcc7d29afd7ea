package dns

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"weft/pkg/overlay"
)

// ZoneLabel is how the labels of a network begin that send a zone to servers of its own:
// dns.zone/corp.example.org = "192.0.2.53,192.0.2.54:5353".
const ZoneLabel = "dns.zone/"

// conditionals reads a network's labels; what cannot be read is left out: CheckLabels refuses it when a network is made.
func conditionals(n overlay.Network) (out []conditional) {
	for _, key := range slices.Sorted(maps.Keys(n.Labels)) {
		name, ok := strings.CutPrefix(key, ZoneLabel)
		if !ok {
			continue
		}
		suffix, ok := wireName(name)
		c := conditional{suffix: suffix}
		for s := range strings.SplitSeq(n.Labels[key], ",") {
			if a, err := ParseServer(s); err == nil {
				c.servers = append(c.servers, a)
			}
		}
		if ok && len(c.servers) > 0 {
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(x, y conditional) int { return cmp.Compare(len(y.suffix), len(x.suffix)) })
	return out
}

// ParseServer reads a name server's address, with port 53 when it names none.
func ParseServer(s string) (netip.AddrPort, error) {
	s = strings.TrimSpace(s)
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	return netip.ParseAddrPort(s)
}

// CheckLabels says what is wrong with the labels of a network that begin with ZoneLabel, on one line.
func CheckLabels(labels map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		name, ok := strings.CutPrefix(key, ZoneLabel)
		if !ok {
			continue
		}
		if w, ok := wireName(name); !ok || len(w) == 1 {
			return fmt.Errorf("label %q: %q is no zone: use %sexample.org=192.0.2.53", key, name, ZoneLabel)
		}
		for s := range strings.SplitSeq(labels[key], ",") {
			if _, err := ParseServer(s); err != nil {
				return fmt.Errorf("label %q: %q is no name server: use addresses as 192.0.2.53 or 192.0.2.53:5353, with commas between", key, s)
			}
		}
	}
	return nil
}
