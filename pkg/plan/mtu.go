package plan

// Bytes that encapsulation adds to an IP packet.
const (
	// vxlanOverhead: outer IPv4 20 (RFC 791), UDP 8 (RFC 768), VXLAN 8 (RFC 7348 section 5), inner Ethernet 14.
	vxlanOverhead = 50
	// wireGuardOverhead: outer IPv6 40 (RFC 8200), UDP 8, WireGuard data header 16 and tag 16 (white paper section
	// 5.4.6). Over an IPv4 underlay it is 20 less; the larger one is used, so that one MTU is right over both.
	wireGuardOverhead = 80
	// minMTU is the least MTU that IPv4 allows (RFC 791 section 3.2).
	minMTU = 68
)

// NetworkMTU is the largest endpoint MTU in bytes that fits an underlay MTU in bytes, over IPv4 and IPv6 underlays
// alike: 1450 plain and 1370 encrypted on 1500. It is 0 when nothing fits.
func NetworkMTU(underlay int, encrypted bool) int {
	overhead := vxlanOverhead
	if encrypted {
		overhead += wireGuardOverhead
	}
	if underlay < overhead+minMTU {
		return 0
	}
	return underlay - overhead
}

// transitMTU is the MTU of the WireGuard devices, 0 (not managed) when the underlay's is unknown.
func transitMTU(underlay int) int { return max(0, underlay-wireGuardOverhead) }
