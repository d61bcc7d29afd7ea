package overlay

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// check compares an error with what it should say: nothing, or one line with want in it.
func check(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && err == nil:
		t.Errorf("taken, want an error with %q", want)
	case want != "" && (!strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\x1b")):
		t.Errorf("error is %q, want one line with %q", err, want)
	}
}

func TestValidateName(t *testing.T) {
	for _, tc := range []struct{ kind, name, want string }{
		{NetworkName, "my-app", ""},
		{NetworkName, "My_App.2", ""},
		{NetworkName, "7", ""},
		{NetworkName, "7.8", ""},
		{NetworkName, strings.Repeat("a", 63), ""},
		{NetworkName, strings.Repeat("a", 64), "use at most 63"},
		{NetworkName, "", "empty"},
		{NetworkName, "-a", "beginning with"},
		{NetworkName, ".a", "beginning with"},
		{NetworkName, "_a", "beginning with"},
		{NetworkName, "a b", "use letters"},
		{NetworkName, "a/b", "use letters"},
		{NetworkName, "../a", "use letters"},
		{NetworkName, "a\n", "use letters"},
		{NetworkName, "a\x1b[2J", "use letters"},
		{NetworkName, "bücher", "use letters"},
		{NetworkName, "a\x00", "use letters"},
		{NetworkName, "a.", "DNS"},
		{NetworkName, "a..b", "DNS"},
		{NetworkName, "10.0.0.1", "IP address"},
		{NetworkName, "host", "reserved"},
		{NetworkName, "Ingress", "reserved"},
		{NetworkName, "TASKS", "reserved"},
		{NetworkName, "weft", "reserved"},
		{NetworkName, "weft2", ""},
		{NodeName, "host", ""},
		{NodeName, "n1.example.org", ""},
		{ServiceName, "default", ""},
		{ServiceName, "tasks", "reserved"},
		{AliasName, "localhost", "reserved"},
		{EndpointName, "web.1.x2y3", ""},
		{PortName, "http", ""},
	} {
		t.Run(tc.kind+"/"+tc.name, func(t *testing.T) {
			err := ValidateName(tc.kind, tc.name)
			check(t, err, tc.want)
			if err != nil && !strings.HasPrefix(err.Error(), tc.kind+" name ") {
				t.Errorf("error %q does not begin with the kind", err)
			}
		})
	}
	for _, word := range strings.Fields("nodes node tasks host none bridge default consul weft ingress localhost all") {
		check(t, ValidateName(NetworkName, word), "reserved")
	}
	if got := CanonicalName("My-App"); got != "my-app" {
		t.Errorf("canonical name is %q", got)
	}
}

func TestIDs(t *testing.T) {
	for id, want := range map[string]string{
		"0123456789ab": "", "0123456789AB": "not 12", "0123456789a": "not 12", "0123456789abc": "not 12", "": "not 12", "../../../etc": "not 12",
		"0123456789a\n": "not 12",
	} {
		check(t, NetworkID(id).Validate(), want)
	}
	for id, want := range map[string]string{
		"a": "", "A1_.:-": "", strings.Repeat("f", 128): "", strings.Repeat("f", 129): "endpoint id", "": "endpoint id",
		"-a": "endpoint id", ":a": "endpoint id", "a/b": "endpoint id", "a b": "endpoint id", "a\n": "endpoint id", "é": "endpoint id",
	} {
		check(t, EndpointID(id).Validate(), want)
	}
	for mac, want := range map[MAC]string{
		{2, 0, 0, 0, 0, 1}: "", {0, 0, 0, 0, 0, 1}: "", {}: "zero", {1, 0, 0x5e}: "multicast", {255, 255, 255, 255, 255, 255}: "multicast",
	} {
		check(t, mac.Validate(), want)
	}
	nets, eps, macs := map[NetworkID]bool{}, map[EndpointID]bool{}, map[MAC]bool{}
	for range 1000 {
		n, e, m := NewNetworkID(), NewEndpointID(), NewMAC()
		check(t, n.Validate(), "")
		check(t, e.Validate(), "")
		check(t, m.Validate(), "")
		if m[0] != 2 {
			t.Errorf("MAC %s does not begin with 02", m)
		}
		nets[n], eps[e], macs[m] = true, true, true
	}
	if len(nets) != 1000 || len(eps) != 1000 || len(macs) != 1000 {
		t.Errorf("made %d networks, %d endpoints, %d MACs out of 1000", len(nets), len(eps), len(macs))
	}
}

func TestParseSubnet(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.0/24":         "",
		"10.0.0.0/8":          "",
		"192.168.1.8/29":      "",
		"100.64.0.0/10":       "",
		"10.0.0.5/24":         "subnet 10.0.0.5/24 has host bits set: use 10.0.0.0/24",
		"10.0.0.0/30":         "subnet 10.0.0.0/30 is too small: use /29 or larger",
		"10.0.0.0/32":         "too small",
		"10.0.0.0/7":          "too large: use /8 or smaller",
		"0.0.0.0/0":           "too large",
		"0.0.0.0/8":           "unspecified",
		"127.0.0.0/24":        "loopback",
		"169.254.64.0/24":     "link-local",
		"169.0.0.0/8":         "link-local",
		"224.0.1.0/24":        "multicast",
		"250.0.0.0/24":        "reserved",
		"fd00::/64":           "not IPv4",
		"::ffff:10.0.0.0/120": "not IPv4",
		"10.0.0.0":            "CIDR form: write it like",
		"":                    "CIDR",
		"10.0.0.0/":           "CIDR",
		"10.0.0/24":           "CIDR",
		"010.0.0.0/24":        "CIDR",
		"10.0.0.0/24\n":       "CIDR",
		"blue":                "CIDR",
	} {
		t.Run(in, func(t *testing.T) {
			p, err := ParseSubnet(in)
			check(t, err, want)
			if (err == nil) != p.IsValid() || err == nil && p.String() != in {
				t.Errorf("ParseSubnet = %v, %v", p, err)
			}
		})
	}
}

func TestParseGateway(t *testing.T) {
	subnet := netip.MustParsePrefix("10.0.0.0/24")
	for in, want := range map[string]string{
		"10.0.0.1":        "",
		"10.0.0.254":      "",
		"10.0.1.1":        "gateway 10.0.1.1 is outside subnet 10.0.0.0/24: use an address inside it, as 10.0.0.1",
		"10.0.0.0":        "network address",
		"10.0.0.255":      "broadcast address",
		"fd00::1":         "outside",
		"::ffff:10.0.0.1": "outside",
		"":                "not an IP address",
		"10.0.0.1/24":     "not an IP address",
	} {
		t.Run(in, func(t *testing.T) {
			a, err := ParseGateway(in, subnet)
			check(t, err, want)
			if (err == nil) != a.IsValid() {
				t.Errorf("ParseGateway = %v, %v", a, err)
			}
		})
	}
}

func TestParseIPRange(t *testing.T) {
	subnet := netip.MustParsePrefix("10.0.0.0/24")
	for in, want := range map[string]string{
		"10.0.0.0/24":   "",
		"10.0.0.128/25": "",
		"10.0.0.7/32":   "",
		"10.0.0.0/31":   "",
		"10.0.0.0/32":   "no usable address",
		"10.0.0.255/32": "no usable address",
		"10.0.0.0/23":   "not inside",
		"10.0.1.0/25":   "not inside",
		"10.0.0.129/25": "use 10.0.0.128/25",
		"fd00::/120":    "not IPv4",
		"10.0.0.7":      "CIDR",
		"":              "CIDR",
	} {
		t.Run(in, func(t *testing.T) {
			p, err := ParseIPRange(in, subnet)
			check(t, err, want)
			if (err == nil) != p.IsValid() {
				t.Errorf("ParseIPRange = %v, %v", p, err)
			}
		})
	}
}

func TestUsableAddresses(t *testing.T) {
	for _, tc := range []struct {
		subnet, gateway string
		want            int
	}{
		{"10.0.0.0/24", "10.0.0.1", 253},
		{"10.0.0.0/24", "", 254},
		{"10.0.0.0/24", "10.9.0.1", 254},
		{"10.0.0.0/29", "10.0.0.1", 5},
		{"10.0.0.0/8", "10.0.0.1", 1<<24 - 3},
		{"10.0.0.0/31", "", 0},
		{"10.0.0.0/32", "", 0},
		{"0.0.0.0/0", "", 1<<32 - 2},
		{"fd00::/64", "", 0},
	} {
		gw := netip.Addr{}
		if tc.gateway != "" {
			gw = netip.MustParseAddr(tc.gateway)
		}
		if got := UsableAddresses(netip.MustParsePrefix(tc.subnet), gw); got != tc.want {
			t.Errorf("UsableAddresses(%s, %s) = %d, want %d", tc.subnet, tc.gateway, got, tc.want)
		}
	}
	if UsableAddresses(netip.Prefix{}, netip.Addr{}) != 0 || DefaultGateway(netip.Prefix{}).IsValid() {
		t.Error("no subnet has addresses")
	}
	// The slow twin: count them.
	subnet := netip.MustParsePrefix("192.168.4.0/26")
	gw, n := DefaultGateway(subnet), 0
	for a := subnet.Addr(); subnet.Contains(a); a = a.Next() {
		if checkHost("", a, subnet) == nil && a != gw {
			n++
		}
	}
	if diff := cmp.Diff(n, UsableAddresses(subnet, gw)); gw.String() != "192.168.4.1" || diff != "" {
		t.Errorf("gateway %s (-counted +got):\n%s", gw, diff)
	}
}

func FuzzValidateName(f *testing.F) {
	docker := regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
	label := regexp.MustCompile(`^[^.]+(\.[^.]+)*$`)
	for _, s := range []string{"a", "my-app", "A..b", "1.2.3.4", "host", "é", "a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, ipErr := netip.ParseAddr(s)
		want := docker.MatchString(s) && !strings.HasSuffix(s, "\n") && len(s) <= 63 && label.MatchString(s) && ipErr != nil
		if err := ValidateName(PortName, s); (err == nil) != want { // ports have no reserved words
			t.Errorf("ValidateName(%q) = %v, want ok %v", s, err, want)
		} else if err != nil && strings.ContainsAny(err.Error(), "\n\x1b\x00") {
			t.Errorf("error is not one plain line: %q", err)
		}
	})
}

func FuzzParseSubnet(f *testing.F) {
	f.Add("10.0.0.0/24", "10.0.0.1", "10.0.0.128/25")
	f.Add("fd00::/64", "::1", "x")
	f.Fuzz(func(t *testing.T, s, gateway, ipRange string) {
		p, err := ParseSubnet(s)
		if err != nil {
			return
		}
		if !p.Contains(DefaultGateway(p)) || UsableAddresses(p, DefaultGateway(p)) < 5 {
			t.Errorf("%s: gateway %s, %d usable", p, DefaultGateway(p), UsableAddresses(p, DefaultGateway(p)))
		}
		n := goodNetwork()
		n.Subnets, n.Gateway = []netip.Prefix{p}, DefaultGateway(p)
		if g, err := ParseGateway(gateway, p); err == nil {
			n.Gateway = g
		}
		if r, err := ParseIPRange(ipRange, p); err == nil {
			n.IPRange = r
		}
		if err := n.Validate(); err != nil {
			t.Errorf("what was parsed does not validate: %v", err)
		}
	})
}
