package kstate

import (
	"fmt"
	"net/netip"

	"weft/keys"
)

// WGDevice is the configuration of a WireGuard device in the transit namespace. Only the public half of its key is
// state; the applier asks its keyring for the private one.
type WGDevice struct {
	NS, Name  string
	PublicKey keys.PublicKey
	Port      uint16
}

func (d WGDevice) Key() Key     { return Key{d.NS, "wgdevice", d.Name} }
func (d WGDevice) Stage() Stage { return StageWireGuard }
func (d WGDevice) On() string   { return d.Name }
func (d WGDevice) String() string {
	return fmt.Sprintf("wgdevice %s public %s port %d", d.Name, d.PublicKey, d.Port)
}

// WGPeer is one peer of a WireGuard device.
type WGPeer struct {
	NS, Device string
	PublicKey  keys.PublicKey
	Endpoint   netip.AddrPort
	// AllowedIPs is sorted and comma-separated.
	AllowedIPs string
	// Keepalive is the persistent keepalive interval in seconds, 0 for off.
	Keepalive int
	// Preshared is the fingerprint of the preshared key, "" for none.
	Preshared string
	// Fresh is set by the observer when the last handshake is younger than 3 minutes (REJECT_AFTER_TIME, WireGuard
	// white paper section 6.1): then the endpoint in use is proved, and a different one in the record waits.
	Fresh bool
}

func (p WGPeer) Key() Key     { return Key{p.NS, "wgpeer", p.Device + " " + p.PublicKey.String()} }
func (p WGPeer) Stage() Stage { return StageWireGuard }
func (p WGPeer) On() string   { return p.Device }
func (p WGPeer) String() string {
	s := fmt.Sprintf("wgpeer %s %s endpoint %s allowed %s", p.Device, p.PublicKey, p.Endpoint, p.AllowedIPs)
	if p.Keepalive != 0 {
		s += fmt.Sprintf(" keepalive %d", p.Keepalive)
	}
	if p.Preshared != "" {
		s += " preshared " + p.Preshared
	}
	return s
}

func (p WGPeer) same(have WGPeer) bool {
	if have.Fresh {
		have.Endpoint = p.Endpoint
	}
	have.Fresh = p.Fresh
	return p == have
}
