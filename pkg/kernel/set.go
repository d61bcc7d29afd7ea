package kernel

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"weft/pkg/overlay"
)

// setType is one of the types that kstate.NFSet allows.
type setType struct {
	name     string
	fields   []field
	interval bool
}

// field is one part of a set's key.
type field struct {
	// nft is the datatype that nft(8) shows it as.
	nft nftables.SetDatatype
	// size in the key, a multiple of 4.
	size   int
	encode func(string) ([]byte, bool)
	decode func([]byte) string
}

var (
	addrField = field{nftables.TypeIPAddr, 4, encodeAddr, func(b []byte) string { return netip.AddrFrom4([4]byte(b)).String() }}
	// nft(8) has no type for a VNI, and shows an integer without a declaration as 0: a mark is the nearest it can show.
	vniField   = field{nftables.TypeMark, 4, encodeVNI, func(b []byte) string { return strconv.Itoa(int(binary.BigEndian.Uint32(b) >> 8)) }}
	ifField    = field{nftables.TypeIFName, unix.IFNAMSIZ, encodeIfname, func(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }}
	etherField = field{nftables.TypeEtherAddr, 8, encodeEther, func(b []byte) string { return overlay.MAC(b[:6]).String() }}
)

var setTypes = []setType{
	{name: "ipv4_addr . vni", fields: []field{addrField, vniField}},
	{name: "vni", fields: []field{vniField}},
	{name: "ipv4_addr", fields: []field{addrField}},
	{name: "ipv4_net", fields: []field{addrField}, interval: true},
	{name: "ifname . ether_addr . ipv4_addr", fields: []field{ifField, etherField, addrField}},
	{name: "ifname . ether_addr", fields: []field{ifField, etherField}},
}

// parseSetType finds the type that kstate calls name.
func parseSetType(name string) (setType, error) {
	for _, t := range setTypes {
		if t.name == name {
			return t, nil
		}
	}
	return setType{}, fmt.Errorf("set type %q: unknown", name)
}

// typeOf finds the type of a set read from the kernel; ok is false when it is none of ours.
func typeOf(s *nftables.Set) (t setType, ok bool) {
	if s.IsMap || s.HasTimeout || s.Dynamic || s.Constant {
		return t, false
	}
	for _, t := range setTypes {
		if key := t.key(); key.GetNFTMagic() == s.KeyType.GetNFTMagic() && key.Bytes == s.KeyType.Bytes && t.interval == s.Interval {
			return t, true
		}
	}
	return t, false
}

// key is the datatype of the whole key.
func (t setType) key() nftables.SetDatatype {
	if len(t.fields) == 1 {
		return t.fields[0].nft
	}
	parts := make([]nftables.SetDatatype, len(t.fields))
	for i, f := range t.fields {
		parts[i] = f.nft
	}
	return nftables.MustConcatSetType(parts...)
}

// elements are the kernel's elements for one value of the set: one, or both ends of an interval.
func (t setType) elements(value string) ([]nftables.SetElement, error) {
	if t.interval {
		return intervalElements(value)
	}
	parts := strings.Split(value, " . ")
	if len(parts) != len(t.fields) {
		return nil, fmt.Errorf("set element %q: want %d fields for type %s", value, len(t.fields), t.name)
	}
	var key []byte
	for i, f := range t.fields {
		b, ok := f.encode(parts[i])
		if !ok {
			return nil, fmt.Errorf("set element %q: field %q does not fit type %s", value, parts[i], t.name)
		}
		key = append(key, b...)
		key = append(key, make([]byte, f.size-len(b))...)
	}
	return []nftables.SetElement{{Key: key}}, nil
}

// intervalElements are the two elements that stand for a prefix, or for a range FIRST-LAST as intervalValues shows what
// others have put in: its first address, and the end mark one behind its last, which is left out where there is no
// address behind.
func intervalElements(value string) ([]nftables.SetElement, error) {
	first, end, ok := parseRange(value)
	if !ok {
		return nil, fmt.Errorf("set element %q: not an IPv4 prefix", value)
	}
	out := []nftables.SetElement{{Key: binary.BigEndian.AppendUint32(nil, uint32(first))}}
	if end < 1<<32 {
		out = append(out, nftables.SetElement{Key: binary.BigEndian.AppendUint32(nil, uint32(end)), IntervalEnd: true})
	}
	return out, nil
}

// parseRange reads what rangeText writes; end is one behind the last address.
func parseRange(value string) (first, end uint64, ok bool) {
	if a, b, isRange := strings.Cut(value, "-"); isRange {
		lo, okLo := encodeAddr(a)
		hi, okHi := encodeAddr(b)
		if !okLo || !okHi {
			return 0, 0, false
		}
		first, end = uint64(binary.BigEndian.Uint32(lo)), uint64(binary.BigEndian.Uint32(hi))+1
		return first, end, first < end
	}
	p, err := netip.ParsePrefix(value)
	if err != nil || !p.Addr().Is4() || p != p.Masked() {
		return 0, 0, false
	}
	a := p.Addr().As4()
	first = uint64(binary.BigEndian.Uint32(a[:]))
	return first, first + 1<<(32-p.Bits()), true
}

// values are the texts of elements read from the kernel, sorted.
func (t setType) values(elems []nftables.SetElement) []string {
	if t.interval {
		return intervalValues(elems)
	}
	var out []string
	for _, e := range elems {
		var parts []string
		key := e.Key
		for _, f := range t.fields {
			if len(key) < f.size {
				parts = append(parts, fmt.Sprintf("0x%x", key)) // nothing of ours
				break
			}
			parts = append(parts, f.decode(key[:f.size]))
			key = key[f.size:]
		}
		out = append(out, strings.Join(parts, " . "))
	}
	slices.Sort(out)
	return out
}

// intervalValues joins begins and ends to prefixes. A range that is no prefix, which can only be another's, shows as
// FIRST-LAST, so that it differs from everything wanted.
func intervalValues(elems []nftables.SetElement) []string {
	type edge struct {
		at  uint64
		end bool
	}
	var edges []edge
	for _, e := range elems {
		if len(e.Key) != 4 {
			continue
		}
		at := uint64(binary.BigEndian.Uint32(e.Key))
		if e.IntervalEnd && at == 0 {
			continue // some kernels open the list with an empty interval's end
		}
		edges = append(edges, edge{at, e.IntervalEnd})
	}
	slices.SortFunc(edges, func(a, b edge) int {
		if a.at == b.at && a.end != b.end {
			if a.end {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.at, b.at)
	})
	var out []string
	for i, e := range edges {
		if e.end {
			continue
		}
		end := uint64(1 << 32)
		if i+1 < len(edges) {
			end = edges[i+1].at
		}
		out = append(out, rangeText(e.at, end))
	}
	slices.Sort(out)
	return out
}

func rangeText(first, end uint64) string {
	a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(first))))
	for bits := 0; bits <= 32; bits++ {
		if end-first == 1<<(32-bits) && first%(1<<(32-bits)) == 0 {
			return netip.PrefixFrom(a, bits).String()
		}
	}
	return fmt.Sprintf("%s-%s", a, netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(end-1)))))
}

func encodeAddr(s string) ([]byte, bool) {
	a, err := netip.ParseAddr(s)
	return a.AsSlice(), err == nil && a.Is4()
}

// encodeVNI gives four bytes, the number in the upper three as in the packet.
func encodeVNI(s string) ([]byte, bool) {
	n, err := strconv.ParseUint(s, 10, 24)
	return binary.BigEndian.AppendUint32(nil, uint32(n)<<8), err == nil
}

func encodeIfname(s string) ([]byte, bool) {
	b, err := ifname(s)
	return b, err == nil && len(b) == unix.IFNAMSIZ
}

func encodeEther(s string) ([]byte, bool) {
	m, err := overlay.ParseMAC(s)
	return m[:], err == nil
}
