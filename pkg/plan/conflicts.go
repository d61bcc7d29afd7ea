package plan

import (
	"fmt"
	"net/netip"

	"weft/pkg/kstate"
)

// typeInterval is the one type of set whose elements may be in each other's way.
const typeInterval = "ipv4_net"

// settleConflicts finds what is there and in the way of what is to be added.
func (d *differ) settleConflicts() {
	taken, concerned := d.takenBy(), map[kstate.Key]kstate.Entry{}
	for k, e := range d.add {
		switch e.Item.(type) {
		case kstate.Link, kstate.Elem:
			concerned[k] = e
		}
	}
	for _, k := range order(concerned) {
		switch it := d.add[k].Item.(type) {
		case kstate.Link:
			for _, c := range resources(it) {
				for _, owner := range taken[c] {
					if owner != k && (d.drop[owner] || d.remade[owner]) {
						d.takeBefore(k, owner)
					}
				}
			}
		case kstate.Elem:
			d.settleInterval(k, it)
		}
	}
}

// takenBy says which existing links have a resource. It is only needed when a link is to be added.
func (d *differ) takenBy() map[string][]kstate.Key {
	taken := map[string][]kstate.Key{}
	for _, e := range d.add {
		if _, ok := e.Item.(kstate.Link); !ok {
			continue
		}
		for k, h := range d.have.Entries {
			if l, ok := h.Item.(kstate.Link); ok {
				for _, c := range resources(l) {
					taken[c] = append(taken[c], k)
				}
			}
		}
		break
	}
	return taken
}

// resources is what only one link at a time can have: its name, its far end's name, and for VXLAN the pair of VNI and
// port on its underlay.
func resources(l kstate.Link) []string {
	out := []string{"name " + l.NS + "/" + l.Name}
	switch l.Kind {
	case kstate.KindVeth:
		out = append(out, "name "+l.PeerNS+"/"+l.PeerName)
	case kstate.KindVXLAN:
		out = append(out, fmt.Sprintf("vni %d port %d underlay %s", l.VNI, l.Port, l.Underlay))
	}
	return out
}

// settleInterval makes room for a new range of an interval set. Of two overlapping prefixes one contains the other. A
// new one that contains the old replaces it, frozen or not, for nothing is lost; a new one inside an old one that must
// stay is covered already and is not added.
func (d *differ) settleInterval(k kstate.Key, e kstate.Elem) {
	set, ok := d.want.Entries[kstate.NFSet{NS: e.NS, Family: e.Family, Name: e.Set}.Key()].Item.(kstate.NFSet)
	if !ok || set.Type != typeInterval {
		return
	}
	p, err := netip.ParsePrefix(e.Value)
	if err != nil {
		return
	}
	d.deps.index()
	for _, old := range d.deps.inTable(e.NS, e.Family, e.Set) {
		o, err := netip.ParsePrefix(d.have.Entries[old].Item.(kstate.Elem).Value)
		if err != nil || d.want.Has(old) || d.gone[old] || !p.Overlaps(o) {
			continue
		}
		if d.drop[old] || p.Bits() <= o.Bits() {
			d.takeBefore(k, old)
		} else {
			delete(d.add, k)
		}
	}
}
