package e2e

import (
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"testing"

	"weft/pkg/overlay"
)

// The packets that tests forge, built by hand so that nothing of weft's own code is trusted to make them.

func mac(t *testing.T, s string) []byte {
	t.Helper()
	hw, err := net.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return hw
}

func ethernet(dst, src []byte, kind uint16, payload []byte) []byte {
	b := append(append([]byte{}, dst...), src...)
	b = binary.BigEndian.AppendUint16(b, kind)
	return append(b, payload...)
}

// udp4 is an IPv4 packet with a UDP datagram; the UDP checksum is left out, as IPv4 allows.
func udp4(src, dst netip.Addr, sport, dport uint16, payload []byte) []byte {
	u := binary.BigEndian.AppendUint16(nil, sport)
	u = binary.BigEndian.AppendUint16(u, dport)
	u = binary.BigEndian.AppendUint16(u, uint16(8+len(payload)))
	u = append(append(u, 0, 0), payload...)
	return ipv4(src, dst, 17, u)
}

func ipv4(src, dst netip.Addr, proto byte, payload []byte) []byte {
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

// vxlan is the payload of a VXLAN datagram (RFC 7348 section 5).
func vxlan(vni overlay.VNI, inner []byte) []byte {
	b := []byte{0x08, 0, 0, 0, byte(vni >> 16), byte(vni >> 8), byte(vni), 0}
	return append(b, inner...)
}

// arpReply claims that ip is at hw (RFC 826).
func arpReply(hw []byte, ip netip.Addr, toHW []byte, toIP netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 2}
	b = append(append(b, hw...), ip.AsSlice()...)
	return append(append(b, toHW...), toIP.AsSlice()...)
}

func toHex(b []byte) string { return hex.EncodeToString(b) }
