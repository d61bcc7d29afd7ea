package dns

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// Wire constants (RFC 1035 section 4, RFC 2782, RFC 3596, RFC 6891, RFC 8482).
const (
	headerLen = 12
	maxName   = 255 // octets of a name, its root label included
	maxLabels = 127
	maxTCP    = 65535
	minUDP    = 512

	typeA     = 1
	typeSOA   = 6
	typePTR   = 12
	typeHINFO = 13
	typeAAAA  = 28
	typeSRV   = 33
	typeOPT   = 41
	typeIXFR  = 251
	typeAXFR  = 252
	typeANY   = 255

	classIN = 1

	rcodeSuccess  = 0
	rcodeFormErr  = 1
	rcodeServFail = 2
	rcodeNXDomain = 3
	rcodeNotImp   = 4
	rcodeRefused  = 5
	rcodeBadVers  = 16

	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagRA = 1 << 7
	flagCD = 1 << 4

	opcodeMask = 0xf << 11
	flagDO     = 1 << 15 // in an OPT record's TTL field, lower half

	aLen    = 16 // a packed A record: pointer, type, class, TTL, length, address
	aaaaLen = 28
	optLen  = 11
)

var be = binary.BigEndian

// wireName is a name in wire form, lower case, with its root label; ok is false for what no query can ask. Dots
// separate labels: names of weft hold no other ones.
func wireName(name string) (wire []byte, ok bool) {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if name != "" {
		for label := range strings.SplitSeq(name, ".") {
			if label == "" || len(label) > 63 {
				return nil, false
			}
			wire = append(append(wire, byte(len(label))), label...)
		}
	}
	wire = append(wire, 0)
	return wire, len(wire) <= maxName
}

// text is a wire name for people, without its final dot.
func text(wire []byte) string {
	var b strings.Builder
	for i := 0; i < len(wire) && wire[i] != 0; i += 1 + int(wire[i]) {
		if i > 0 {
			b.WriteByte('.')
		}
		for _, c := range wire[i+1 : min(i+1+int(wire[i]), len(wire))] {
			if c <= ' ' || c >= 0x7f || c == '.' || c == '\\' {
				b.WriteByte('\\')
				b.WriteByte('0' + c/100)
				b.WriteByte('0' + c/10%10)
				b.WriteByte('0' + c%10)
				continue
			}
			b.WriteByte(c)
		}
	}
	if b.Len() == 0 {
		return "."
	}
	return b.String()
}

// skipName is the offset behind the name at off, or -1. It follows no pointers, so it cannot loop.
func skipName(msg []byte, off int) int {
	for n := 0; off < len(msg); {
		c := int(msg[off])
		switch {
		case c == 0:
			return off + 1
		case c >= 0xc0:
			if off+2 > len(msg) {
				return -1
			}
			return off + 2
		case c > 63:
			return -1
		}
		if n += c + 1; n >= maxName {
			return -1
		}
		off += c + 1
	}
	return -1
}

// record is one resource record's place in a message.
type record struct {
	start, ttl, data, end int // offsets: of the name, the TTL, the data, and behind it
	typ, class            uint16
}

// recordAt reads the record at off; ok is false when it is not wholly there.
func recordAt(msg []byte, off int) (r record, ok bool) {
	r.start = off
	if off = skipName(msg, off); off < 0 || off+10 > len(msg) {
		return r, false
	}
	r.typ, r.class, r.ttl, r.data = be.Uint16(msg[off:]), be.Uint16(msg[off+2:]), off+4, off+10
	r.end = r.data + int(be.Uint16(msg[off+8:]))
	return r, r.end <= len(msg)
}

// question is what weft reads of a request.
type question struct {
	id, flags     uint16
	qtype, qclass uint16
	end           int    // of the question in the message; headerLen when there is none
	name          []byte // lower case, wire form, with the root label; in buf
	labels        int
	offsets       [maxLabels + 1]uint8 // of each label in name
	edns, do      bool
	size          int // of the largest UDP answer the asker takes, as it says
	rcode         int // what is wrong with it, or rcodeSuccess
	buf           [maxName + 1]byte
}

// parse reads a request. false means that nothing may be answered: it is no request at all (RFC 1035 section 4.1.1:
// answering answers would let two servers talk for ever).
func (q *question) parse(msg []byte) bool {
	if len(msg) < headerLen || msg[2]&0x80 != 0 {
		return false
	}
	q.id, q.flags = be.Uint16(msg), be.Uint16(msg[2:])
	q.end, q.name, q.labels, q.qtype, q.qclass = headerLen, nil, 0, 0, 0
	q.edns, q.do, q.size, q.rcode = false, false, minUDP, rcodeSuccess
	if be.Uint16(msg[4:]) != 1 || !q.readQuestion(msg) {
		q.end, q.rcode = headerLen, rcodeFormErr
		if q.flags&opcodeMask != 0 {
			q.rcode = rcodeNotImp
		}
		return true
	}
	if !q.rest(msg) {
		q.rcode = rcodeFormErr
	}
	if q.flags&opcodeMask != 0 {
		q.rcode = rcodeNotImp
	}
	return true
}

// readQuestion reads the only question. A pointer in it could only lead into the header.
func (q *question) readQuestion(msg []byte) bool {
	off, n := headerLen, 0
	for {
		if off >= len(msg) {
			return false
		}
		c := int(msg[off])
		if c == 0 {
			break
		}
		if c > 63 || off+1+c >= len(msg) || n+c+1 >= maxName {
			return false
		}
		q.offsets[q.labels] = uint8(n)
		q.labels++
		q.buf[n] = byte(c)
		for i := 1; i <= c; i++ {
			b := msg[off+i]
			if 'A' <= b && b <= 'Z' {
				b += 'a' - 'A'
			}
			q.buf[n+i] = b
		}
		n += c + 1
		off += c + 1
	}
	q.buf[n] = 0
	q.offsets[q.labels] = uint8(n)
	if off+5 > len(msg) {
		return false
	}
	q.name = q.buf[:n+1]
	q.qtype, q.qclass, q.end = be.Uint16(msg[off+1:]), be.Uint16(msg[off+3:]), off+5
	return true
}

// rest reads what follows the question, for the OPT record in it (RFC 6891 section 6.1.1: at most one, in the
// additional section). Everything else is passed over, but must be there.
func (q *question) rest(msg []byte) bool {
	before := int(be.Uint16(msg[6:])) + int(be.Uint16(msg[8:]))
	off := q.end
	for i := range before + int(be.Uint16(msg[10:])) {
		r, ok := recordAt(msg, off)
		if !ok {
			return false
		}
		off = r.end
		if r.typ != typeOPT {
			continue
		}
		if q.edns || i < before || msg[r.start] != 0 {
			return false
		}
		q.edns, q.size = true, int(r.class)
		q.do = be.Uint16(msg[r.ttl+2:])&flagDO != 0
		if msg[r.ttl+1] != 0 {
			q.rcode = rcodeBadVers // RFC 6891 section 6.1.3
		}
	}
	return true
}

// limit is the largest answer in bytes (RFC 1035 section 4.2.1, RFC 6891 section 6.2.5).
func (q *question) limit(udp bool) int {
	if !udp {
		return maxTCP
	}
	return min(max(q.size, minUDP), maxUDP)
}

// below reports whether the name ends with suffix (wire form, with the root label) at a label's boundary, and how many
// bytes and labels stand before it.
func (q *question) below(suffix []byte) (at, labels int, ok bool) {
	at = len(q.name) - len(suffix)
	if at < 0 || string(q.name[at:]) != string(suffix) {
		return 0, 0, false
	}
	for i := q.labels; i >= 0; i-- {
		switch o := int(q.offsets[i]); {
		case o == at:
			return at, i, true
		case o < at:
			return 0, 0, false
		}
	}
	return 0, 0, false
}

// reverse reads a name of in-addr.arpa (RFC 1035 section 3.5) or ip6.arpa (RFC 3596 section 2.5) that stands for a
// whole address.
func (q *question) reverse() (netip.Addr, bool) {
	if at, labels, ok := q.below(inAddrArpa); ok && labels == 4 {
		var a [4]byte
		for i, off := 3, 0; off < at; i-- {
			n := int(q.name[off])
			v := 0
			for _, c := range q.name[off+1 : off+1+n] {
				if c < '0' || c > '9' || v > 255 || n > 1 && q.name[off+1] == '0' {
					return netip.Addr{}, false
				}
				v = v*10 + int(c-'0')
			}
			if v > 255 {
				return netip.Addr{}, false
			}
			a[i] = byte(v)
			off += n + 1
		}
		return netip.AddrFrom4(a), true
	}
	at, labels, ok := q.below(ip6Arpa)
	if !ok || labels != 32 || at != 64 {
		return netip.Addr{}, false
	}
	var a [16]byte
	for i := range 32 {
		c := q.name[2*i+1]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return netip.Addr{}, false
		}
		a[15-i/2] |= c << (4 * (i % 2))
	}
	return netip.AddrFrom16(a), true
}

var (
	inAddrArpa = mustWire("in-addr.arpa")
	ip6Arpa    = mustWire("ip6.arpa")
)

func mustWire(name string) []byte {
	w, ok := wireName(name)
	if !ok {
		panic("dns: " + name + " is no name")
	}
	return w
}
