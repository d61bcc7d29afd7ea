package dns

import (
	"cmp"
	"net/netip"
	"slices"

	"weft/pkg/overlay"
)

// packAddr packs an address record whose owner is the question.
func packAddr(a netip.Addr) []byte {
	typ := uint16(typeAAAA)
	if a.Is4() {
		typ = typeA
	}
	raw := a.AsSlice()
	b := be.AppendUint16([]byte{0xc0, headerLen}, typ)
	b = be.AppendUint32(be.AppendUint16(b, classIN), TTL)
	return append(be.AppendUint16(b, uint16(len(raw))), raw...)
}

// packPTR packs a PTR record whose owner is the question.
func packPTR(target []byte) []byte {
	b := be.AppendUint16([]byte{0xc0, headerLen}, typePTR)
	b = be.AppendUint32(be.AppendUint16(b, classIN), TTL)
	return append(be.AppendUint16(b, uint16(len(target))), target...)
}

// newEntry packs the records of a name: of the instances that pass their check, or of all when none does: an answer
// that may work is better than none. failing says that it was so.
func newEntry(name string, all []*instance) (e *entry, failing bool) {
	// Order must not depend on the order of events: the same cluster gives the same view.
	all = slices.Clone(all)
	slices.SortFunc(all, func(x, y *instance) int {
		return cmp.Or(cmp.Compare(x.group, y.group), x.addr.Compare(y.addr), cmp.Compare(x.id, y.id))
	})
	e = &entry{instances: all}
	use := slices.DeleteFunc(slices.Clone(all), func(i *instance) bool { return !i.health.Answered() })
	if len(use) == 0 {
		use = all
		failing = slices.ContainsFunc(all, func(i *instance) bool { return i.health == overlay.HealthFailing })
	}
	if port := use[0].ports[name]; port != 0 {
		for _, i := range use {
			e.srv = append(e.srv, packSRV(i, i.ports[name]))
		}
		return e, failing
	}
	var last *instance
	for _, i := range use {
		if last != nil && last.addr == i.addr {
			continue
		}
		last = i
		if i.addr.Is4() {
			e.a.add(i.a, i.group)
		} else {
			e.aaaa.add(i.a, i.group)
		}
	}
	e.a.groups, e.aaaa.groups = sizes(e.a.groups), sizes(e.aaaa.groups)
	return e, failing
}

// add appends a record; until sizes is called, groups holds each record's group.
func (r *rrset) add(packed []byte, group int) {
	r.packed = append(r.packed, packed...)
	r.groups = append(r.groups, group)
}

// sizes turns each record's group into the sizes of all groups but the last.
func sizes(groups []int) (out []int) {
	n := 0
	for i, g := range groups {
		if i > 0 && g != groups[i-1] {
			out = append(out, n)
			n = 0
		}
		n++
	}
	return out
}

// packSRV packs one SRV record (RFC 2782). Its priority is the instance's group: the nearest first.
func packSRV(i *instance, port uint16) service {
	b := be.AppendUint16([]byte{0xc0, headerLen}, typeSRV)
	b = be.AppendUint32(be.AppendUint16(b, classIN), TTL)
	b = be.AppendUint16(b, uint16(6+len(i.target)))
	b = be.AppendUint16(be.AppendUint16(be.AppendUint16(b, uint16(max(i.group, 1))), 1), port)
	return service{packed: append(b, i.target...), extra: i.a[2:], group: i.group}
}
