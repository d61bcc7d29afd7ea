package plan

import (
	"slices"
	"strings"

	"weft/pkg/kstate"
)

// dependents answers what the kernel drops along with an item of a state. Its indexes are built at the first question:
// most passes ask none.
type dependents struct {
	state *kstate.State
	onLnk map[place][]kstate.Key // items on a link
	inNS  map[string][]kstate.Key
}

// place is a link, by namespace and name.
type place struct{ ns, link string }

func newDependents(s *kstate.State) *dependents { return &dependents{state: s} }

func (d *dependents) index() {
	if d.onLnk != nil {
		return
	}
	d.onLnk, d.inNS = map[place][]kstate.Key{}, map[string][]kstate.Key{}
	for k, e := range d.state.Entries {
		if on := e.Item.On(); on != "" {
			d.onLnk[place{k.NS, on}] = append(d.onLnk[place{k.NS, on}], k)
		}
		d.inNS[k.NS] = append(d.inNS[k.NS], k)
	}
}

// of returns the keys of what vanishes with it, its own not included.
func (d *dependents) of(it kstate.Item) []kstate.Key {
	d.index()
	switch it := it.(type) {
	case kstate.NetNS:
		return d.ofNetNS(it)
	case kstate.Link:
		return d.ofLink(it)
	case kstate.Port:
		return d.masterFDB(it.NS, it.Link)
	case kstate.Table:
		return d.inTable(it.NS, it.Family, "")
	case kstate.NFSet:
		return d.inTable(it.NS, it.Family, it.Name)
	}
	return nil
}

func (d *dependents) ofNetNS(n kstate.NetNS) []kstate.Key {
	var out []kstate.Key
	for _, k := range d.inNS[n.Name] {
		if k == n.Key() {
			continue
		}
		out = append(out, k)
		if l, ok := d.state.Entries[k].Item.(kstate.Link); ok {
			out = append(out, d.onLnk[place{l.PeerNS, l.PeerName}]...)
		}
	}
	return out
}

func (d *dependents) ofLink(l kstate.Link) []kstate.Key {
	out := slices.Clone(d.onLnk[place{l.NS, l.Name}])
	if l.Kind == kstate.KindVeth {
		out = append(out, d.onLnk[place{l.PeerNS, l.PeerName}]...)
	}
	if l.Kind != kstate.KindBridge {
		return out
	}
	for _, k := range d.inNS[l.NS] {
		if p, ok := d.state.Entries[k].Item.(kstate.Port); ok && p.Bridge == l.Name {
			out = append(append(out, k), d.masterFDB(p.NS, p.Link)...)
		}
	}
	return out
}

// masterFDB is what a bridge knows behind one of its ports.
func (d *dependents) masterFDB(ns, link string) []kstate.Key {
	d.index()
	var out []kstate.Key
	for _, k := range d.onLnk[place{ns, link}] {
		if f, ok := d.state.Entries[k].Item.(kstate.FDB); ok && f.Master {
			out = append(out, k)
		}
	}
	return out
}

// inTable is what a table holds, or only the elements of one of its sets.
func (d *dependents) inTable(ns string, f kstate.Family, set string) []kstate.Key {
	var out []kstate.Key
	for _, k := range d.inNS[ns] {
		in := false
		switch it := d.state.Entries[k].Item.(type) {
		case kstate.NFSet:
			in = it.Family == f && set == ""
		case kstate.Elem:
			in = it.Family == f && (set == "" || it.Set == set)
		case kstate.Chain:
			in = it.Family == f && set == ""
		}
		if in {
			out = append(out, k)
		}
	}
	return out
}

// chainsNaming is the chains whose rules look up a set.
func (d *dependents) chainsNaming(set kstate.NFSet) []kstate.Key {
	d.index()
	var out []kstate.Key
	for _, k := range d.inNS[set.NS] {
		c, ok := d.state.Entries[k].Item.(kstate.Chain)
		if ok && c.Family == set.Family && slices.Contains(strings.Fields(c.Rules), "@"+set.Name) {
			out = append(out, k)
		}
	}
	return out
}

// reachesOut reports whether an item is a link that takes something outside its own namespace: a VNI or a port on its
// underlay, or a name at its far end.
func (d *dependents) reachesOut(k kstate.Key) bool {
	l, ok := d.state.Entries[k].Item.(kstate.Link)
	return ok && l.Kind != kstate.KindBridge
}
