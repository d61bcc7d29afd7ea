package frame

import "bytes"

// Joining
//
// Segments of one flow that arrive one after the other are given to the kernel as one large frame: it passes the bridge
// and the receiver's TCP once instead of forty times. The frame must be one that Cut would cut into exactly the segments
// it was made of, so a segment joins only if every byte of its headers is what Cut would write. All that the kernel's
// own GRO lets through although it loses information (the window, a fixed identification) ends the frame here.
//
// Order: frames come out in the order in which their first segments came in, and a segment never joins across another
// one of its flow. So a flow's bytes keep their order; different flows may pass each other within one batch.
//
// Checksums are verified before a segment is joined, for the kernel takes the joined frame's as given. A segment with a
// wrong one passes alone and unchanged; dropping it is for its receiver.

const (
	maxOpen     = 16    // flows that are open at a time: what fits in a batch
	maxIPLen    = 65535 // of a joined packet
	maxJoinUDP  = 64    // segments; UDP_MAX_SEGMENTS before Linux 6.9
	maxJoinTCP  = 256
	ipv4NoFrag  = 0xbfff // the frag field but for DF
	hopLimitV4  = 8
	protocolV4  = 9
	protocolV6  = 6
	hopLimitV6  = 7
	addressesV4 = 12
	addressesV6 = 8
)

// Joiner collects one batch of frames. The zero value is empty and ready. It keeps slices of the caller's buffers until
// Reset. Not safe for concurrent use.
type Joiner struct {
	groups []group
	open   [maxOpen]int // indexes in groups, the latest first
	opened int
}

// group is one frame to be written.
type group struct {
	segment
	tag      int
	buf      []byte   // the first segment behind VNetLen bytes of room
	parts    [][]byte // the same, and the payloads of the others
	size     int      // payload of all segments but the last
	total    int      // payload so far
	verified bool
}

// segment is a frame whose headers have been read.
type segment struct {
	frame      []byte
	l3, l4, at int // offsets of IP, transport, payload
	v6, tcp    bool
}

// Reset forgets everything, and the buffers with it.
func (j *Joiner) Reset() {
	for i := range j.groups {
		g := &j.groups[i]
		clear(g.parts)
		*g = group{parts: g.parts[:0]}
	}
	j.groups, j.opened = j.groups[:0], 0
}

// Add takes the frame buf[at:]; at is VNetLen or more, for a header is written in front of the frame. Only frames with
// the same tag are joined.
func (j *Joiner) Add(tag int, buf []byte, at int) {
	s, ok := parseSegment(buf[at:])
	if !ok {
		j.opened = 0 // it might be of any flow: a fragment, for instance
		j.push(tag, buf[at-VNetLen:], s)
		return
	}
	for i, n := range j.open[:j.opened] {
		g := &j.groups[n]
		if g.tag != tag || !g.sameFlow(&s) {
			continue
		}
		joined, more := g.join(&s)
		if !joined {
			j.close(i)
			break
		}
		if !more {
			j.close(i)
		}
		return
	}
	j.push(tag, buf[at-VNetLen:], s)
	if s.canBegin() {
		copy(j.open[1:], j.open[:j.opened])
		j.open[0] = len(j.groups) - 1
		j.opened = min(j.opened+1, maxOpen)
	}
}

func (j *Joiner) close(i int) {
	copy(j.open[i:], j.open[i+1:j.opened])
	j.opened--
}

func (j *Joiner) push(tag int, buf []byte, s segment) {
	if len(j.groups) < cap(j.groups) {
		j.groups = j.groups[:len(j.groups)+1] // with the slices of its former life
	} else {
		j.groups = append(j.groups, group{})
	}
	g := &j.groups[len(j.groups)-1]
	n := len(s.frame) - s.at
	*g = group{segment: s, tag: tag, buf: buf, parts: append(g.parts[:0], buf), size: n, total: n}
}

// Emit calls f for every frame in turn. parts[0] begins with a virtio_net_hdr, and all parts together are what is
// written to the TAP; segments is how many frames were joined. f must not keep parts.
func (j *Joiner) Emit(f func(tag int, parts [][]byte, segments int)) {
	for i := range j.groups {
		g := &j.groups[i]
		if len(g.parts) == 1 {
			VNet{}.Put(g.buf)
		} else {
			g.finish()
		}
		f(g.tag, g.parts, len(g.parts))
	}
}

// parseSegment reads a TCP or UDP frame without what Cut could not restore; ok is false for all others.
func parseSegment(b []byte) (s segment, ok bool) {
	s.frame = b
	proto, l3 := etherType(b)
	s.l3 = l3
	switch {
	case proto == etherIPv4 && len(b) >= l3+20:
		ip := b[l3:]
		if ip[0] != 0x45 || be.Uint16(ip[6:])&ipv4NoFrag != 0 || l3+int(be.Uint16(ip[2:])) != len(b) ||
			fold(sum(ip[:20], 0)) != 0xffff {
			return s, false
		}
		s.l4 = l3 + 20
		proto = uint16(ip[protocolV4])
	case proto == etherIPv6 && len(b) >= l3+40:
		ip := b[l3:]
		if l3+40+int(be.Uint16(ip[4:])) != len(b) {
			return s, false
		}
		s.v6, s.l4 = true, l3+40
		proto = uint16(ip[protocolV6])
	default:
		return s, false
	}
	switch {
	case proto == protoTCP && len(b) >= s.l4+20:
		s.tcp, s.at = true, s.l4+int(b[s.l4+12]>>4)*4
		ok = s.at >= s.l4+20 && s.at <= len(b)
	case proto == protoUDP && len(b) >= s.l4+8:
		s.at = s.l4 + 8
		ok = int(be.Uint16(b[s.l4+4:])) == len(b)-s.l4
	}
	return s, ok
}

// canBegin reports whether others may join s: it is full of payload, and carries nothing that ends a burst.
func (s *segment) canBegin() bool {
	l4 := s.frame[s.l4:]
	if len(s.frame) == s.at || s.at > maxHeader {
		return false
	}
	if !s.tcp {
		return be.Uint16(l4[6:]) != 0 // without a checksum it would get one
	}
	return l4[13] == flagACK && be.Uint16(l4[18:]) == 0 && l4[12]&15 == 0
}

// sameFlow compares addresses and ports.
func (g *group) sameFlow(s *segment) bool {
	if g.l4 != s.l4 || g.v6 != s.v6 || g.tcp != s.tcp || le.Uint32(g.frame[g.l4:]) != le.Uint32(s.frame[s.l4:]) {
		return false
	}
	a, b := g.frame[g.l3:g.l4], s.frame[s.l3:s.l4]
	if !g.v6 {
		return le.Uint64(a[addressesV4:]) == le.Uint64(b[addressesV4:])
	}
	return bytes.Equal(a[addressesV6:40], b[addressesV6:40])
}

// join appends s if the result is what Cut would undo, and reports whether yet another segment may follow.
func (g *group) join(s *segment) (joined, more bool) {
	n := len(s.frame) - s.at
	if n == 0 || n > g.size || s.at != g.at || g.at-g.l3+g.total+n > maxIPLen || !g.sameHeaders(s) {
		return false, false
	}
	if !g.verified {
		if !g.valid() {
			return false, false
		}
		g.verified = true
	}
	if !s.valid() {
		return false, false
	}
	g.parts = append(g.parts, s.frame[s.at:])
	g.total += n
	if !g.tcp {
		return true, n == g.size && len(g.parts) < maxJoinUDP
	}
	if s.frame[s.l4+13]&flagPSH != 0 {
		g.frame[g.l4+13] |= flagPSH // Cut leaves it to the last segment
		return true, false
	}
	return true, n == g.size && len(g.parts) < maxJoinTCP
}

// sameHeaders compares what sameFlow has not, and what must advance.
func (g *group) sameHeaders(s *segment) bool {
	if !bytes.Equal(g.frame[:g.l3], s.frame[:s.l3]) {
		return false
	}
	a, b := g.frame[g.l3:], s.frame[s.l3:]
	if g.v6 {
		if le.Uint32(a) != le.Uint32(b) || a[hopLimitV6] != b[hopLimitV6] {
			return false
		}
	} else if a[1] != b[1] || le.Uint16(a[6:]) != le.Uint16(b[6:]) || a[hopLimitV4] != b[hopLimitV4] ||
		be.Uint16(a[4:])+uint16(len(g.parts)) != be.Uint16(b[4:]) {
		return false
	}
	a, b = g.frame[g.l4:g.at], s.frame[s.l4:s.at]
	if !g.tcp {
		return be.Uint16(b[6:]) != 0
	}
	return be.Uint32(a[4:])+uint32(g.total) == be.Uint32(b[4:]) && // sequence number
		le.Uint32(a[8:]) == le.Uint32(b[8:]) && // acknowledgment
		a[12] == b[12] && b[13]&^flagPSH == flagACK &&
		le.Uint16(a[14:]) == le.Uint16(b[14:]) && be.Uint16(b[18:]) == 0 && // window, urgent pointer
		bytes.Equal(a[20:], b[20:])
}

func (s *segment) pseudo() uint64 {
	proto := byte(protoUDP)
	if s.tcp {
		proto = protoTCP
	}
	if s.v6 {
		return pseudo(s.frame[s.l3+addressesV6:s.l3+40], proto)
	}
	return pseudo(s.frame[s.l3+addressesV4:s.l3+20], proto)
}

// valid verifies the transport checksum.
func (s *segment) valid() bool {
	return fold(add(sum(s.frame[s.l4:], s.pseudo()), swapped(uint16(len(s.frame)-s.l4)))) == 0xffff
}

// finish makes the first segment's headers those of the joined frame.
func (g *group) finish() {
	v := VNet{Flags: NeedsCsum, GSOType: GSOUDPL4, HdrLen: uint16(g.at), GSOSize: uint16(g.size), CsumStart: uint16(g.l4),
		CsumOffs: udpCsum}
	ip, l4 := g.frame[g.l3:g.l4], g.frame[g.l4:]
	n := g.at - g.l4 + g.total
	if g.tcp {
		v.CsumOffs, v.GSOType = tcpCsum, GSOTCPv4
		if g.v6 {
			v.GSOType = GSOTCPv6
		}
	} else {
		be.PutUint16(l4[4:], uint16(n))
	}
	v.Put(g.buf)
	if g.v6 {
		be.PutUint16(ip[4:], uint16(n))
	} else {
		be.PutUint16(ip[2:], uint16(n+20))
		le.PutUint16(ip[10:], 0)
		putSum(ip[10:], sum(ip, 0), false)
	}
	// A checksum that is still to be computed holds the sum of the pseudo header.
	le.PutUint16(l4[v.CsumOffs:], fold(add(g.pseudo(), swapped(uint16(n)))))
}
