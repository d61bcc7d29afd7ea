package overlay

import (
	"fmt"
	"net"
	"net/netip"
)

// EndpointID names one endpoint: 12 lower-case hexadecimal digits when weft makes it, or what the caller of attach gave.
type EndpointID string

// MAC is an Ethernet address; comparable, unlike net.HardwareAddr. Its text form is lower-case, colon-separated.
// The zero value means "none".
type MAC [6]byte

// ParseMAC reads the usual colon-separated form of a 48-bit address.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("parse MAC address %q: not six colon-separated bytes", s)
	}
	return MAC(hw), nil
}

// String is the lower-case, colon-separated form.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// IsZero reports whether m is the zero value.
func (m MAC) IsZero() bool { return m == MAC{} }

// MarshalText implements encoding.TextMarshaler.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MAC) UnmarshalText(b []byte) error {
	v, err := ParseMAC(string(b))
	if err == nil {
		*m = v
	}
	return err
}

// LinkLocal is the IPv6 link-local address that modified EUI-64 derives from m (RFC 4291 appendix A).
func (m MAC) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// Port is a named port of a service.
type Port struct {
	Name  string `json:"name"`
	Port  uint16 `json:"port"`
	Proto string `json:"proto"` // "tcp" or "udp"
}

// Endpoint is one attachment of a workload to a network, as other nodes see it.
type Endpoint struct {
	ID       EndpointID `json:"id"`
	Name     string     `json:"name"`
	Address  netip.Addr `json:"address"`
	MAC      MAC        `json:"mac"`
	Services []string   `json:"services,omitempty"`
	Aliases  []string   `json:"aliases,omitempty"`
	Ports    []Port     `json:"ports,omitempty"`
	// Health decides whether names lead to it; the data path does not look at it.
	Health Health `json:"health,omitempty"`
}

// Router is a node's own presence on a network, beside the shared gateway: probes, service addresses and published
// ports speak from it.
type Router struct {
	MAC MAC `json:"mac"`
	// Address is IPv6 link-local, derived from MAC, unique on the network.
	Address netip.Addr `json:"address"`
}

// EndpointSet is what one node has on one network, as its signed record in weft/endpoints/<node>/<network> holds it.
// A set without endpoints says that the node is not on the network.
type EndpointSet struct {
	Node      string     `json:"node"`
	Network   string     `json:"network"`
	NetworkID NetworkID  `json:"networkId"`
	Router    Router     `json:"router,omitzero"`
	Endpoints []Endpoint `json:"endpoints"`
	Revision  uint64     `json:"revision"`
}
