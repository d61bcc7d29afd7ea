package kstate

import (
	"crypto/sha256"
	"encoding/hex"

	"weft/pkg/overlay"
)

// NetworkNS is the namespace of a network.
func NetworkNS(id overlay.NetworkID) string { return NetworkPrefix + string(id) }

// EndpointNS is the name under which weft references an endpoint's namespace.
func EndpointNS(id overlay.EndpointID) string { return EndpointPrefix + short(string(id)) }

// EndpointLink is the bridge-side end of an endpoint's veth pair, 13 characters (IFNAMSIZ allows 15).
func EndpointLink(id overlay.EndpointID) string { return "e" + short(string(id)) }

// LegName is the host-side end of a network's egress leg, 13 characters.
func LegName(id overlay.NetworkID) string { return LegPrefix + string(id)[:min(8, len(id))] }

// WGName is the WireGuard device of a key generation (from 1): generations alternate over two devices.
func WGName(generation int) string { return WGPrefix + string('0'+rune((generation+1)%2)) }

// short is 12 hexadecimal digits that stand for s in a kernel name.
func short(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:6])
}
