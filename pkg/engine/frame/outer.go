package frame

// OuterLen is the length in bytes of what VXLAN puts before an Ethernet frame: IPv4 without options, UDP, VXLAN.
const OuterLen = 20 + 8 + 8

// MaxVNI is the largest VXLAN network identifier.
const MaxVNI = 1<<24 - 1

const vxlanFlagVNI = 0x08 // the I flag, RFC 7348 section 5

// Outer is the part of the outer headers that is the same for all frames from one VTEP to another.
type Outer struct {
	head  [OuterLen]byte
	ipSum uint64
}

// NewOuter makes the headers for frames of a VNI from one address to another.
//
// The packet is atomic (RFC 6864): DF is set and the identification zero, for inside WireGuard nothing fragments it. The
// UDP checksum is zero, as RFC 7348 section 4.1 wants it; WireGuard's seal covers all of it.
func NewOuter(src, dst [4]byte, vni uint32, port uint16) (o Outer) {
	h := o.head[:]
	h[0] = 0x45
	h[6] = 0x40 // DF
	h[8] = 64   // TTL, never decremented
	h[9] = protoUDP
	copy(h[12:], src[:])
	copy(h[16:], dst[:])
	o.ipSum = sum(h[:20], 0)
	be.PutUint16(h[22:], port)
	h[28] = vxlanFlagVNI
	be.PutUint32(h[32:], vni<<8)
	return o
}

// Put writes the headers into the first OuterLen bytes of packet, all of which is then one IPv4 packet. hash chooses the
// source port from the dynamic range (RFC 6335), as RFC 7348 recommends.
func (o *Outer) Put(packet []byte, hash uint32) {
	copy(packet, o.head[:])
	n := uint16(len(packet))
	be.PutUint16(packet[2:], n)
	putSum(packet[10:], o.ipSum+swapped(n), false)
	be.PutUint16(packet[20:], 49152|uint16(hash>>18))
	be.PutUint16(packet[24:], n-20)
}

// Kind says what ParseOuter saw.
type Kind int

// The kinds of packet.
const (
	Other     Kind = iota // not VXLAN for this node's port
	VXLAN                 // well formed
	Malformed             // VXLAN, but not as RFC 7348 has it
)

// ParseOuter looks at a packet from the tunnel and finds the VNI and where the inner frame begins. An ECN mark that the
// outer header got on its way is reported as ce.
func ParseOuter(p []byte, port uint16) (kind Kind, vni uint32, at int, ce bool) {
	if len(p) < 28 || p[0]>>4 != 4 || p[9] != protoUDP {
		return Other, 0, 0, false
	}
	ip := int(p[0]&15) * 4
	if ip < 20 || len(p) < ip+8 || be.Uint16(p[6:])&0x3fff != 0 || be.Uint16(p[ip+2:]) != port {
		return Other, 0, 0, false // a fragment is the kernel's to put together
	}
	v := p[ip+8:]
	// Another flag would change what the rest means, so it is not ignored; neither does the kernel (vxlan_rcv).
	if len(v) < 8+etherLen || be.Uint32(v) != vxlanFlagVNI<<24 || v[7] != 0 || int(be.Uint16(p[ip+4:])) != len(p)-ip {
		return Malformed, 0, 0, false
	}
	return VXLAN, be.Uint32(v[4:]) >> 8, ip + 16, p[1]&3 == 3
}

// MarkCE passes a congestion mark of the outer header on to the inner one (RFC 6040 section 4.2). It reports false when
// the frame must be dropped, because its transport does not know such marks.
func MarkCE(b []byte) bool {
	proto, at := etherType(b)
	switch {
	case proto == etherIPv4 && len(b) >= at+20:
		if b[at+1]&3 == 0 {
			return false
		}
		ip := b[at:min(len(b), at+int(b[at]&15)*4)]
		if b[at+1]&3 == 3 || fold(sum(ip, 0)) != 0xffff || len(ip) < 20 {
			return true
		}
		ip[1] |= 3
		le.PutUint16(ip[10:], 0)
		putSum(ip[10:], sum(ip, 0), false)
	case proto == etherIPv6 && len(b) >= at+40:
		if b[at+1]&0x30 == 0 {
			return false
		}
		b[at+1] |= 0x30
	}
	return true
}
