package frame

// Ethernet types (IANA).
const (
	etherIPv4, etherIPv6 = 0x0800, 0x86dd
	etherVLAN, etherQinQ = 0x8100, 0x88a8
)

// etherLen is the length of an Ethernet header without tags, in bytes.
const etherLen = 14

// etherType returns the type of a frame behind at most two VLAN tags, and where its payload begins; 0 when the frame is
// too short to tell.
func etherType(b []byte) (proto uint16, at int) {
	if len(b) < etherLen {
		return 0, 0
	}
	proto, at = be.Uint16(b[12:]), etherLen
	for range 2 {
		if proto != etherVLAN && proto != etherQinQ {
			break
		}
		if len(b) < at+4 {
			return 0, 0
		}
		proto, at = be.Uint16(b[at+2:]), at+4
	}
	return proto, at
}

// FlowHash mixes what tells flows apart: the addresses and ports of TCP and UDP over IP, else the Ethernet header. It
// chooses the outer source port (RFC 7348 section 5), so that the underlay may spread flows.
func FlowHash(b []byte) uint32 {
	proto, at := etherType(b)
	var h uint64
	switch {
	case proto == etherIPv4 && len(b) >= at+24:
		h = le.Uint64(b[at+12:])
		if b[at] == 0x45 && be.Uint16(b[at+6:])&0x3fff == 0 && (b[at+9] == protoTCP || b[at+9] == protoUDP) {
			h ^= uint64(le.Uint32(b[at+20:])) * 0x9e3779b97f4a7c15
		}
	case proto == etherIPv6 && len(b) >= at+44:
		h = le.Uint64(b[at+8:]) ^ le.Uint64(b[at+16:])*3 ^ le.Uint64(b[at+24:])*5 ^ le.Uint64(b[at+32:])*7
		if b[at+6] == protoTCP || b[at+6] == protoUDP {
			h ^= uint64(le.Uint32(b[at+40:])) * 0x9e3779b97f4a7c15
		}
	case len(b) >= etherLen:
		h = le.Uint64(b) ^ uint64(le.Uint32(b[8:]))<<17
	}
	h *= 0xff51afd7ed558ccd // MurmurHash3's finaliser
	return uint32(h >> 32)
}
