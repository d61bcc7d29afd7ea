package agent

import (
	"fmt"
	"net"
	"net/netip"
)

// underlay is where this node meets the others.
type underlay struct {
	Addr  netip.Addr
	Iface string
	MTU   int
}

// findUnderlay resolves the advertise setting: an address of this host, the name of an interface, or empty for the
// source address of the default route.
func findUnderlay(advertise string) (underlay, error) {
	var want netip.Addr
	switch a, err := netip.ParseAddr(advertise); {
	case advertise == "":
		src, err := defaultSource()
		if err != nil {
			return underlay{}, err
		}
		want = src
	case err == nil:
		want = a.Unmap()
	default:
		return interfaceUnderlay(advertise)
	}
	if want.IsLoopback() || want.IsLinkLocalUnicast() || want.IsMulticast() || want.IsUnspecified() {
		return underlay{}, fmt.Errorf("advertise address %s cannot be reached from other hosts: set advertise to one that can", want)
	}
	ifaces, err := net.Interfaces()
	if err != nil {
		return underlay{}, fmt.Errorf("list interfaces: %w", err)
	}
	for _, i := range ifaces {
		for _, a := range interfaceAddrs(i) {
			if a == want {
				return underlay{Addr: want, Iface: i.Name, MTU: i.MTU}, nil
			}
		}
	}
	return underlay{}, fmt.Errorf("advertise address %s is on no interface of this host: set advertise to one that is, or to an interface name", want)
}

func interfaceUnderlay(name string) (underlay, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return underlay{}, fmt.Errorf("advertise %q is neither an address nor an interface of this host", name)
	}
	var v6 netip.Addr
	for _, a := range interfaceAddrs(*i) {
		if a.Is4() && a.IsGlobalUnicast() {
			return underlay{Addr: a, Iface: name, MTU: i.MTU}, nil
		}
		if !v6.IsValid() && a.IsGlobalUnicast() {
			v6 = a
		}
	}
	if !v6.IsValid() {
		return underlay{}, fmt.Errorf("advertise interface %s has no usable address: give it one, or set advertise to an address", name)
	}
	return underlay{Addr: v6, Iface: name, MTU: i.MTU}, nil
}

func interfaceAddrs(i net.Interface) []netip.Addr {
	addrs, err := i.Addrs()
	if err != nil {
		return nil // the interface went while we looked: it has none
	}
	var out []netip.Addr
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, ip.Unmap())
			}
		}
	}
	return out
}

// defaultSource asks the kernel which source address it would use. Connecting a UDP socket sends nothing; the
// destinations are documentation addresses (RFC 5737, RFC 3849).
func defaultSource() (netip.Addr, error) {
	for _, dst := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		c, err := net.Dial("udp", dst)
		if err != nil {
			continue
		}
		a := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		if err := c.Close(); err != nil {
			return netip.Addr{}, fmt.Errorf("find the default source address: %w", err)
		}
		if a.IsGlobalUnicast() {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no default route to take the underlay address from: set advertise to an address or interface")
}
