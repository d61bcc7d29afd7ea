package frame

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed says that a frame's headers do not fit the frame, or what is to be done to it.
var ErrMalformed = errors.New("malformed frame")

// maxHeader bounds the Ethernet, IP and transport headers of a frame that is cut, in bytes: 2 VLAN tags, IPv6 and the
// longest TCP header are 122; the rest is room for extension headers.
const maxHeader = 256

const (
	tcpCsum, udpCsum = 16, 6 // offset of the checksum in the header (RFC 9293, RFC 768)

	flagFIN, flagSYN, flagPSH, flagACK = 0x01, 0x02, 0x08, 0x10 // TCP flags (RFC 9293 section 3.1)
	flagCWR                            = 0x80                   // RFC 3168

	protoTCP, protoUDP = 6, 17
)

var be = binary.BigEndian

// Cut cuts one large frame into the segments that a network card would send (linux/Documentation/networking/
// segmentation-offloads.rst): every segment has the headers of the frame, with its own lengths, sequence number,
// identification, flags and checksums. Prepare it, then Finish each segment.
type Cut struct {
	// Header is the length of the headers in bytes: where a segment's payload begins.
	Header int
	// Size is the payload of every segment but the last, in bytes.
	Size int
	// Payload is that of all segments together.
	Payload int

	head         [maxHeader]byte
	l3, l4       int
	v6, tcp      bool
	ipSum, l4Sum uint64 // of what does not change from segment to segment
	seq          uint32
	id           uint16
	flags        byte
}

// Count is the number of segments, at least 1.
func (c *Cut) Count() int { return max(1, (c.Payload+c.Size-1)/c.Size) }

// Prepare reads the headers of a frame of n bytes; first holds its beginning, at least the headers. It keeps a copy of
// them, so that segment 0 may be finished in place.
func (c *Cut) Prepare(v VNet, first []byte, n int) error {
	c.l4, c.Size = int(v.CsumStart), int(v.GSOSize)
	kind := v.GSOType &^ GSOECN
	c.tcp = kind == GSOTCPv4 || kind == GSOTCPv6
	if v.Flags&NeedsCsum == 0 || c.Size == 0 || !c.tcp && kind != GSOUDPL4 {
		return ErrMalformed
	}
	var proto uint16
	proto, c.l3 = etherType(first)
	c.v6 = proto == etherIPv6
	if !c.v6 && proto != etherIPv4 || c.v6 && kind == GSOTCPv4 || !c.v6 && kind == GSOTCPv6 {
		return ErrMalformed
	}
	least := 20
	if c.v6 {
		least = 40
	}
	if c.l4 < c.l3+least || c.l4+20 > len(first) && c.tcp || c.l4+8 > len(first) {
		return ErrMalformed
	}
	c.Header = c.l4 + 8
	if c.tcp {
		c.Header = c.l4 + int(first[c.l4+12]>>4)*4
		if c.Header < c.l4+20 {
			return ErrMalformed
		}
	}
	if c.Header > min(len(first), maxHeader, n) || int(v.CsumOffs) != c.csumOffset() {
		return ErrMalformed
	}
	c.Payload = n - c.Header
	copy(c.head[:], first[:c.Header])
	c.presum()
	return nil
}

func (c *Cut) csumOffset() int {
	if c.tcp {
		return tcpCsum
	}
	return udpCsum
}

// presum clears what differs from segment to segment and sums the rest.
func (c *Cut) presum() {
	ip, l4 := c.head[c.l3:c.l4], c.head[c.l4:c.Header]
	proto := byte(protoUDP)
	if c.tcp {
		proto = protoTCP
		c.seq, c.flags = be.Uint32(l4[4:]), l4[13]
		be.PutUint32(l4[4:], 0)
		l4[13] &^= flagFIN | flagPSH | flagCWR
	} else {
		be.PutUint16(l4[4:], 0)
	}
	be.PutUint16(l4[c.csumOffset():], 0)
	if c.v6 {
		c.l4Sum = sum(l4, pseudo(ip[8:40], proto))
		return
	}
	c.id = be.Uint16(ip[4:])
	be.PutUint16(ip[2:], 0)
	be.PutUint16(ip[4:], 0)
	be.PutUint16(ip[10:], 0)
	c.ipSum = sum(ip, 0)
	c.l4Sum = sum(l4, pseudo(ip[12:20], proto))
}

// Len is the length in bytes of segment i.
func (c *Cut) Len(i int) int { return c.Header + min(c.Size, c.Payload-i*c.Size) }

// Finish writes the headers of segment i into seg, which is Len(i) long and holds the payload already.
func (c *Cut) Finish(i int, seg []byte) {
	copy(seg, c.head[:c.Header])
	ip, l4 := seg[c.l3:c.l4], seg[c.l4:]
	if c.v6 {
		be.PutUint16(ip[4:], uint16(len(seg)-c.l3-40))
	} else {
		id, n := c.id+uint16(i), uint16(len(seg)-c.l3)
		be.PutUint16(ip[2:], n)
		be.PutUint16(ip[4:], id)
		putSum(ip[10:], c.ipSum+swapped(n)+swapped(id), false)
	}
	acc := sum(seg[c.Header:], c.l4Sum)
	n := swapped(uint16(len(l4)))
	if !c.tcp {
		le.PutUint16(l4[4:], uint16(n))
		putSum(l4[udpCsum:], add(acc, 2*n), true)
		return
	}
	seq := c.seq + uint32(i*c.Size)
	be.PutUint32(l4[4:], seq)
	flags := l4[13]
	if i == 0 {
		flags |= c.flags & flagCWR
	}
	if (i+1)*c.Size >= c.Payload {
		flags |= c.flags & (flagFIN | flagPSH)
	}
	varying := uint64(flags^l4[13])<<8 + swapped(uint16(seq>>16)) + swapped(uint16(seq)) + n
	l4[13] = flags
	putSum(l4[tcpCsum:], add(acc, varying), false)
}
