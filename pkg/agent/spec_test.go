package agent

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"weft/pkg/api"
	"weft/pkg/overlay"
)

// TestCheckSpec: what a person typed wrongly is answered in one line that says what to do.
func TestCheckSpec(t *testing.T) {
	for name, tc := range map[string]struct {
		spec api.NetworkSpec
		err  string
	}{
		"name only":          {api.NetworkSpec{Name: "blue"}, ""},
		"all":                {api.NetworkSpec{Name: "Blue", Subnet: "10.0.0.0/24", Gateway: "10.0.0.9", IPRange: "10.0.0.128/25", MTU: 1400}, ""},
		"no name":            {api.NetworkSpec{}, "network name is empty"},
		"reserved":           {api.NetworkSpec{Name: "host"}, "reserved"},
		"name with a slash":  {api.NetworkSpec{Name: "a/b"}, `network name "a/b" is not valid: use letters`},
		"not a CIDR":         {api.NetworkSpec{Name: "blue", Subnet: "10.0.0.0"}, "CIDR"},
		"host bits":          {api.NetworkSpec{Name: "blue", Subnet: "10.0.0.1/24"}, "use 10.0.0.0/24"},
		"too small":          {api.NetworkSpec{Name: "blue", Subnet: "10.0.0.0/30"}, "too small: use /29 or larger"},
		"IPv6":               {api.NetworkSpec{Name: "blue", Subnet: "fd00::/64"}, "not IPv4"},
		"gateway outside":    {api.NetworkSpec{Name: "blue", Subnet: "10.0.0.0/24", Gateway: "10.0.1.1"}, "gateway 10.0.1.1 is outside subnet 10.0.0.0/24"},
		"gateway no address": {api.NetworkSpec{Name: "blue", Subnet: "10.0.0.0/24", Gateway: "x"}, "not an IP address"},
		"gateway alone":      {api.NetworkSpec{Name: "blue", Gateway: "10.0.0.1"}, "--gateway and --ip-range need --subnet: give the subnet they lie in"},
		"range alone":        {api.NetworkSpec{Name: "blue", IPRange: "10.0.0.0/25"}, "--gateway and --ip-range need --subnet"},
		"range outside":      {api.NetworkSpec{Name: "blue", Subnet: "10.0.0.0/24", IPRange: "10.0.1.0/25"}, "not inside"},
		"MTU small":          {api.NetworkSpec{Name: "blue", MTU: 575}, "MTU 575 is out of range: use 576 to 65405, or leave --mtu out"},
		"MTU large":          {api.NetworkSpec{Name: "blue", MTU: 65406}, "MTU 65406 is out of range"},
		"MTU negative":       {api.NetworkSpec{Name: "blue", MTU: -1}, "MTU -1 is out of range"},
		"MTU smallest":       {api.NetworkSpec{Name: "blue", MTU: 576}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := checkSpec(tc.spec)
			if tc.err == "" {
				if err != nil || n.Name != "blue" || n.MTU != tc.spec.MTU {
					t.Errorf("checkSpec = %+v, %v", n, err)
				}
				return
			}
			var e *api.Error
			if !errors.As(err, &e) || e.Code != api.Invalid || !strings.Contains(e.Message, tc.err) || strings.Contains(e.Message, "\n") {
				t.Errorf("error is %v, want one line with %q", err, tc.err)
			}
		})
	}
	n, err := checkSpec(api.NetworkSpec{Name: "blue", Subnet: "10.0.0.0/24"})
	if err != nil || n.Gateway.String() != "10.0.0.1" || n.IPRange.IsValid() {
		t.Errorf("defaults in a subnet: %+v, %v", n, err)
	}
	if n, err = checkSpec(api.NetworkSpec{Name: "blue"}); err != nil || len(n.Subnets) != 0 || n.Gateway.IsValid() {
		t.Errorf("without a subnet none is chosen here: %+v, %v", n, err)
	}
}

func TestNextPrefix(t *testing.T) {
	for p, want := range map[string]string{
		"10.0.0.0/24":        "10.0.1.0/24",
		"10.0.255.0/24":      "10.1.0.0/24",
		"10.0.0.0/8":         "11.0.0.0/8",
		"10.0.0.0/32":        "10.0.0.1/32",
		"255.255.254.0/24":   "255.255.255.0/24",
		"255.255.255.0/24":   "invalid Prefix",
		"255.255.255.255/32": "invalid Prefix",
		"128.0.0.0/1":        "invalid Prefix",
		"0.0.0.0/0":          "invalid Prefix",
	} {
		if got := nextPrefix(netip.MustParsePrefix(p)).String(); got != want {
			t.Errorf("after %s comes %s, want %s", p, got, want)
		}
	}
	// The walk over a pool ends, also at the end of the address space.
	for pool, want := range map[string]int{"10.0.0.0/16": 256, "255.255.0.0/16": 256, "10.0.0.0/24": 1} {
		n := 0
		for p := netip.PrefixFrom(netip.MustParsePrefix(pool).Addr(), 24); netip.MustParsePrefix(pool).Contains(p.Addr()); p = nextPrefix(p) {
			n++
		}
		if n != want {
			t.Errorf("pool %s has %d subnets, want %d", pool, n, want)
		}
	}
}

// TestSource: the namespace of an attach is named once, and it is not the host's.
func TestSource(t *testing.T) {
	for name, tc := range map[string]struct {
		spec api.AttachSpec
		code api.Code
		err  string
	}{
		"nothing":      {api.AttachSpec{}, api.Invalid, "exactly one of a path (--netns) and a process (--pid)"},
		"two":          {api.AttachSpec{NetNS: "/run/netns/x", PID: 1}, api.Invalid, "exactly one"},
		"new and path": {api.AttachSpec{NetNS: "/run/netns/x", NewNetNS: true}, api.Invalid, "exactly one"},
		"no such path": {api.AttachSpec{NetNS: "/run/netns/no-such"}, api.NotFound, "namespace /run/netns/no-such: "},
		"no such pid":  {api.AttachSpec{PID: 1 << 30}, api.NotFound, "process 1073741824 does not run on this host"},
		"the host's":   {api.AttachSpec{NetNS: "/proc/self/ns/net"}, api.Invalid, "is the host's own"},
	} {
		t.Run(name, func(t *testing.T) {
			var e overlay.LocalEndpoint
			err := bare().source(&e, tc.spec)
			var x *api.Error
			if !errors.As(err, &x) || x.Code != tc.code || !strings.Contains(x.Message, tc.err) || strings.Contains(x.Message, "\n") {
				t.Errorf("error is %v, want %s: one line with %q", err, tc.code, tc.err)
			}
		})
	}
}
