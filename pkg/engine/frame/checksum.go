package frame

import (
	"encoding/binary"
	"math/bits"
)

// The Internet checksum (RFC 1071). Sums are kept in 64 bits with end-around carry, over little-endian words: the sum of
// swapped words is the swapped sum (RFC 1071 section 2(B)), so as long as words are loaded and stored in one order, which
// one does not matter.

var le = binary.LittleEndian

// sum adds b to acc. b must begin at an even offset of what is summed; its length may be odd when it ends there.
func sum(b []byte, acc uint64) uint64 {
	wide, n := sumWide(b)
	acc, c := bits.Add64(acc, wide, 0)
	acc += c
	b = b[n:]
	for len(b) >= 64 {
		// One chain of add-with-carry: 8 bytes a cycle.
		acc, c = bits.Add64(acc, le.Uint64(b), 0)
		acc, c = bits.Add64(acc, le.Uint64(b[8:]), c)
		acc, c = bits.Add64(acc, le.Uint64(b[16:]), c)
		acc, c = bits.Add64(acc, le.Uint64(b[24:]), c)
		acc, c = bits.Add64(acc, le.Uint64(b[32:]), c)
		acc, c = bits.Add64(acc, le.Uint64(b[40:]), c)
		acc, c = bits.Add64(acc, le.Uint64(b[48:]), c)
		acc, c = bits.Add64(acc, le.Uint64(b[56:64]), c)
		acc += c
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, c = bits.Add64(acc, le.Uint64(b), 0)
		acc += c
		b = b[8:]
	}
	var tail uint64
	for i, x := range b {
		tail |= uint64(x) << (8 * i)
	}
	acc, c = bits.Add64(acc, tail, 0)
	return acc + c
}

// add adds a number of at most 48 bits.
func add(acc, v uint64) uint64 {
	acc, c := bits.Add64(acc, v, 0)
	return acc + c
}

// fold brings a sum to 16 bits.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// swapped is a number in network order as sum sees it.
func swapped(v uint16) uint64 { return uint64(bits.ReverseBytes16(v)) }

// pseudo is the sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1) without the length. addrs are both
// addresses, as they lie in the IP header.
func pseudo(addrs []byte, proto byte) uint64 { return sum(addrs, swapped(uint16(proto))) }

// putSum stores the checksum of acc. A UDP checksum of zero would mean "none" (RFC 768).
func putSum(b []byte, acc uint64, udp bool) {
	s := ^fold(acc)
	if s == 0 && udp {
		s = 0xffff
	}
	le.PutUint16(b, s)
}
