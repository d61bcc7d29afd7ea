package dns

import (
	"math/rand/v2"
)

// maxUDP is the largest answer over UDP in bytes, whatever larger size the asker offers: it fits every path without
// fragments (RFC 9715 section 3.1), and a size beyond 65507 could not be sent at all.
const maxUDP = 1232

// soaTimes are refresh, retry, expire and minimum of every SOA; the last is how long a negative answer may be kept
// (RFC 2308 section 4).
var soaTimes = [4]uint32{60, 60, 60, TTL}

// hinfo is the answer to ANY (RFC 8482 section 4.2).
var hinfo = func() []byte {
	b := be.AppendUint16([]byte{0xc0, headerLen}, typeHINFO)
	b = be.AppendUint32(be.AppendUint16(b, classIN), TTL)
	return append(be.AppendUint16(b, 9), "\x07RFC8482\x00"...)
}()

// reply assembles an answer. Sections are appended in order; what does not fit sets TC.
type reply struct {
	b     []byte
	limit int // less what the OPT record will need
	an    int
	ns    int
	ar    int
	cut   bool
}

// begin writes header and question of the answer to q, which stands in req.
func (r *reply) begin(b, req []byte, q *question, limit int) {
	*r = reply{b: append(append(b[:0], req[:headerLen]...), req[headerLen:q.end]...), limit: limit}
	if q.edns {
		r.limit -= optLen
	}
}

// finish fills in the header and the OPT record. flags are those beside QR and what is copied from the query.
func (r *reply) finish(q *question, flags uint16, rcode int) []byte {
	if r.cut {
		flags |= flagTC
	}
	qd := uint16(0)
	if q.end > headerLen {
		qd = 1
	}
	if q.edns {
		r.b = appendOPT(r.b, q.do, rcode)
		r.ar++
	}
	// RD and the opcode are copied (RFC 1035 section 4.1.1), CD too (RFC 4035 section 3.2.2).
	be.PutUint16(r.b[2:], flagQR|q.flags&(opcodeMask|flagRD|flagCD)|flags|uint16(rcode&0xf))
	be.PutUint16(r.b[4:], qd)
	be.PutUint16(r.b[6:], uint16(r.an))
	be.PutUint16(r.b[8:], uint16(r.ns))
	be.PutUint16(r.b[10:], uint16(r.ar))
	return r.b
}

// appendOPT appends an OPT record (RFC 6891 section 6.1.2); DO is copied (RFC 3225 section 3).
func appendOPT(b []byte, do bool, rcode int) []byte {
	b = be.AppendUint16(append(b, 0), typeOPT)
	b = be.AppendUint16(b, maxUDP)
	var ext uint32
	if do {
		ext = flagDO
	}
	return append(be.AppendUint32(b, uint32(rcode>>4)<<24|ext), 0, 0)
}

// refusal is an answer with nothing but a code.
func refusal(b, req []byte, q *question, flags uint16, rcode int) []byte {
	var r reply
	r.begin(b, req, q, maxTCP)
	return r.finish(q, flags, rcode)
}

// addresses appends packed records of n bytes in random order within their groups, as many as fit.
func (r *reply) addresses(set *rrset, n int) {
	count := len(set.packed) / n
	from := len(r.b)
	r.b = append(r.b, set.packed...)
	if count > 1 {
		at := from
		for _, size := range set.groups {
			shuffle(r.b[at:at+size*n], n)
			at += size * n
		}
		shuffle(r.b[at:], n)
	}
	if over := len(r.b) - r.limit; over > 0 {
		drop := min((over+n-1)/n, count)
		r.b, count, r.cut = r.b[:len(r.b)-drop*n], count-drop, true
	}
	r.an += count
}

// shuffle puts records of n bytes into random order (Fisher and Yates).
func shuffle(b []byte, n int) {
	var tmp [aaaaLen]byte
	for i := len(b)/n - 1; i > 0; i-- {
		if j := int(rand.Uint32N(uint32(i + 1))); i != j {
			x, y := b[i*n:i*n+n], b[j*n:j*n+n]
			copy(tmp[:n], x)
			copy(x, y)
			copy(y, tmp[:n])
		}
	}
}

// services appends SRV records in random order, then the addresses of their targets in the additional section; those
// may be left out without TC (RFC 2181 section 9).
func (r *reply) services(list []service) {
	var offsets [64]int // of the targets; more than fit have their names written out
	var order [64]int
	idx := order[:0]
	for i := range list {
		idx = append(idx, i)
	}
	rand.Shuffle(len(idx), func(i, j int) { idx[i], idx[j] = idx[j], idx[i] })
	for k, i := range idx {
		s := &list[i]
		if len(r.b)+len(s.packed) > r.limit {
			r.cut = true
			return
		}
		if k < len(offsets) {
			offsets[k] = len(r.b) + srvTarget
		}
		r.b = append(r.b, s.packed...)
		r.an++
	}
	for k, i := range idx {
		s := &list[i]
		if k < len(offsets) && offsets[k] < 0x4000 {
			if len(r.b)+2+len(s.extra) > r.limit {
				return
			}
			r.b = be.AppendUint16(r.b, 0xc000|uint16(offsets[k]))
		} else {
			if len(r.b)+len(s.packed)-srvTarget+len(s.extra) > r.limit {
				return
			}
			r.b = append(r.b, s.packed[srvTarget:]...)
		}
		r.b = append(r.b, s.extra...)
		r.ar++
	}
}

// pointers appends PTR records.
func (r *reply) pointers(packed []byte) {
	for len(packed) > 0 {
		n := 12 + int(be.Uint16(packed[10:]))
		if len(r.b)+n > r.limit {
			r.cut = true
			return
		}
		r.b = append(r.b, packed[:n]...)
		packed = packed[n:]
		r.an++
	}
}

// soa appends the SOA record of the zone that begins at offset apex of the question's name. A resolver drops one whose
// owner is not above the name.
func (r *reply) soa(apex int) {
	owner := 0xc000 | uint16(headerLen+apex)
	b := be.AppendUint16(be.AppendUint16(r.b, owner), typeSOA)
	b = be.AppendUint32(be.AppendUint16(b, classIN), TTL)
	b = be.AppendUint16(b, 5+13+20)
	b = be.AppendUint16(append(b, "\x02ns"...), owner)
	b = be.AppendUint16(append(b, "\x0ahostmaster"...), owner)
	b = be.AppendUint32(b, 1)
	for _, t := range soaTimes {
		b = be.AppendUint32(b, t)
	}
	if len(b) <= r.limit { // a longest name with the least size leaves room
		r.b = b
	}
}

// own answers a name of ours.
func own(b, req []byte, q *question, f found, flags uint16, limit int) []byte {
	var r reply
	r.begin(b, req, q, limit)
	rcode := rcodeSuccess
	switch e := f.entry; {
	case f.is == unknown:
		rcode = rcodeNXDomain
	case q.qtype == typeANY:
		if e != nil || f.ptr != nil {
			r.b = append(r.b, hinfo...)
			r.an++
		}
	case q.qtype == typeSOA && e == nil && f.ptr == nil && f.apex == 0 && len(q.name) > 1:
		r.soa(0)
		r.an++
	case f.ptr != nil:
		if q.qtype == typePTR {
			r.pointers(f.ptr)
		}
	case e == nil:
	case q.qtype == typeA:
		r.addresses(&e.a, aLen)
	case q.qtype == typeAAAA:
		r.addresses(&e.aaaa, aaaaLen)
	case q.qtype == typeSRV:
		r.services(e.srv)
	}
	if r.an == 0 && !r.cut {
		r.soa(f.apex)
		r.ns++
	}
	return r.finish(q, flags|flagAA, rcode)
}
