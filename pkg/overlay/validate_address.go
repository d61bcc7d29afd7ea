package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Prefix lengths a network's subnet may have. Below 8 it would swallow reserved ranges; /30 leaves one address
// beside the gateway.
const (
	MinSubnetBits = 8
	MaxSubnetBits = 29
)

// unusable ranges for anything that has an address on a network (RFC 6890).
var unusable = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "the unspecified range"},
	{netip.MustParsePrefix("127.0.0.0/8"), "the loopback range"},
	{netip.MustParsePrefix("169.254.0.0/16"), "the link-local range"},
	{netip.MustParsePrefix("224.0.0.0/4"), "the multicast range"},
	{netip.MustParsePrefix("240.0.0.0/4"), "the reserved range"},
}

// ParseSubnet reads a subnet that a person typed, as 10.1.2.0/24; the error is one line and says what to do.
func ParseSubnet(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("subnet %.60q is not in CIDR form: write it like 10.1.2.0/24", s)
	}
	if err := checkSubnet(p); err != nil {
		return netip.Prefix{}, err
	}
	return p, nil
}

// ParseGateway reads a gateway address that a person typed, for a subnet that ParseSubnet took.
func ParseGateway(s string, subnet netip.Prefix) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("gateway %.60q is not an IP address: write it like %s", s, DefaultGateway(subnet))
	}
	if err := checkHost("gateway", a, subnet); err != nil {
		return netip.Addr{}, err
	}
	return a, nil
}

// ParseIPRange reads a range for automatic allocation that a person typed, for a subnet that ParseSubnet took.
func ParseIPRange(s string, subnet netip.Prefix) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("ip range %.60q is not in CIDR form: write it like %s", s, subnet)
	}
	if err := checkIPRange(p, subnet); err != nil {
		return netip.Prefix{}, err
	}
	return p, nil
}

// DefaultGateway is the first usable address of a valid subnet, the zero Addr for anything that is not IPv4.
func DefaultGateway(subnet netip.Prefix) netip.Addr {
	if !subnet.Addr().Is4() {
		return netip.Addr{}
	}
	return subnet.Masked().Addr().Next()
}

// UsableAddresses counts what endpoints can have in an IPv4 subnet: all but the network and broadcast addresses and
// the gateway (the zero Addr, or one that is no host address of the subnet, costs nothing). Zero when there is none.
func UsableAddresses(subnet netip.Prefix, gateway netip.Addr) int {
	if !subnet.IsValid() || !subnet.Addr().Is4() {
		return 0
	}
	n := 1<<(32-subnet.Bits()) - 2
	if gateway.IsValid() && checkHost("gateway", gateway, subnet) == nil {
		n--
	}
	return max(n, 0)
}

func checkSubnet(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("subnet is missing")
	case !p.Addr().Is4():
		return fmt.Errorf("subnet %s is not IPv4: use an IPv4 subnet", p)
	case p.Bits() < MinSubnetBits:
		return fmt.Errorf("subnet %s is too large: use /%d or smaller", p, MinSubnetBits)
	case p.Bits() > MaxSubnetBits:
		return fmt.Errorf("subnet %s is too small: use /%d or larger", p, MaxSubnetBits)
	case p != p.Masked():
		return fmt.Errorf("subnet %s has host bits set: use %s", p, p.Masked())
	}
	for _, r := range unusable {
		if p.Overlaps(r.prefix) {
			return fmt.Errorf("subnet %s overlaps %s (%s): use a private range, as 10.0.0.0/8", p, r.prefix, r.what)
		}
	}
	return nil
}

func checkIPRange(p, subnet netip.Prefix) error {
	switch {
	case !p.IsValid() || !p.Addr().Is4():
		return fmt.Errorf("ip range %s is not IPv4: use a part of %s", p, subnet)
	case p != p.Masked():
		return fmt.Errorf("ip range %s has host bits set: use %s", p, p.Masked())
	case p.Bits() < subnet.Bits() || !subnet.Contains(p.Addr()):
		return fmt.Errorf("ip range %s is not inside subnet %s: use a part of it", p, subnet)
	case p.Bits() == 32 && checkHost("", p.Addr(), subnet) != nil:
		return fmt.Errorf("ip range %s holds no usable address: use a larger part of %s", p, subnet)
	}
	return nil
}

// checkHost checks that a can be the address of a station in subnet; what names it in the error.
func checkHost(what string, a netip.Addr, subnet netip.Prefix) error {
	switch {
	case !a.IsValid():
		return fmt.Errorf("%s is missing", what)
	case !subnet.Contains(a):
		return fmt.Errorf("%s %s is outside subnet %s: use an address inside it, as %s", what, a, subnet, DefaultGateway(subnet))
	case a == subnet.Masked().Addr():
		return fmt.Errorf("%s %s is the network address of %s: use another, as %s", what, a, subnet, DefaultGateway(subnet))
	case a == broadcast(subnet):
		return fmt.Errorf("%s %s is the broadcast address of %s: use another, as %s", what, a, subnet, DefaultGateway(subnet))
	}
	return nil
}

// broadcast is the last address of an IPv4 prefix.
func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	host := uint32(1)<<(32-p.Bits()) - 1
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|host)
	return netip.AddrFrom4(b)
}

// checkUnicast4 checks that a can be the address of one station somewhere.
func checkUnicast4(what string, a netip.Addr) error {
	if !a.IsValid() {
		return fmt.Errorf("%s is missing", what)
	}
	if !a.Is4() {
		return fmt.Errorf("%s %s is not IPv4", what, a)
	}
	for _, r := range unusable {
		if r.prefix.Contains(a) {
			return fmt.Errorf("%s %s is in %s (%s)", what, a, r.what, r.prefix)
		}
	}
	return nil
}
