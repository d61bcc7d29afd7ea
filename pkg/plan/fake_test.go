package plan

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"

	"weft/pkg/kstate"
)

// fakeKernel is the slow, obvious twin of what Diff assumes of a kernel: every item names what it needs, whatever lacks
// it is refused when added, and vanishes when it goes.
type fakeKernel struct {
	items map[kstate.Key]kstate.Entry
	ends  map[place]bool // ends of links, nil when a link has changed since
}

func newFake(s *kstate.State) *fakeKernel {
	f := &fakeKernel{items: map[kstate.Key]kstate.Entry{}}
	maps.Copy(f.items, s.Entries)
	return f
}

// state is what an observer would see.
func (f *fakeKernel) state() *kstate.State {
	s := kstate.NewState()
	maps.Copy(s.Entries, f.items)
	return s
}

func (f *fakeKernel) apply(op kstate.Op) error {
	k := op.Item.Key()
	old, there := f.items[k]
	switch op.Verb {
	case kstate.Remove:
		if set, ok := op.Item.(kstate.NFSet); ok && f.named(set) {
			return fmt.Errorf("%s: set is in use", op)
		}
		delete(f.items, k)
		f.collect()
		return nil
	case kstate.Set:
		if !there {
			return fmt.Errorf("%s: not there", op)
		}
		if kstate.Recreate(op.Item, old.Item) {
			return fmt.Errorf("%s: cannot be changed in place", op)
		}
		if p, ok := op.Item.(kstate.Port); ok && p.Bridge != old.Item.(kstate.Port).Bridge {
			f.forget(p)
		}
		if p, ok := op.Item.(kstate.WGPeer); ok {
			p.Fresh = old.Item.(kstate.WGPeer).Fresh
			op.Item = p
		}
	case kstate.Add:
		if there && kstate.Recreate(op.Item, old.Item) {
			return fmt.Errorf("%s: exists", op)
		}
		if err := f.free(op.Item); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	if need := f.lacks(op.Item); need != "" {
		return fmt.Errorf("%s: no %s", op, need)
	}
	f.items[k] = kstate.Entry{Group: op.Group, Item: op.Item}
	if _, ok := op.Item.(kstate.Link); ok {
		f.ends = nil
	}
	if op.Verb == kstate.Set {
		f.collect()
	}
	return nil
}

// collect drops what lacks something, until nothing does.
func (f *fakeKernel) collect() {
	for again := true; again; {
		again, f.ends = false, nil
		for k, e := range f.items {
			if f.lacks(e.Item) != "" {
				delete(f.items, k)
				again = true
			}
		}
	}
}

// lacks names what an item needs and does not find.
func (f *fakeKernel) lacks(it kstate.Item) string {
	if _, ok := it.(kstate.NetNS); ok {
		return ""
	}
	ns := it.Key().NS
	if !f.hasNS(ns) {
		return "namespace " + ns
	}
	if on := it.On(); on != "" && !f.hasLink(ns, on) {
		return "link " + on
	}
	switch it := it.(type) {
	case kstate.Link:
		if !f.hasNS(it.PeerNS) || !f.hasNS(it.Underlay) {
			return "other namespace of the link"
		}
	case kstate.Port:
		if b, ok := f.items[kstate.Link{NS: ns, Name: it.Bridge}.Key()]; !ok || b.Item.(kstate.Link).Kind != kstate.KindBridge {
			return "bridge " + it.Bridge
		}
	case kstate.FDB:
		if _, ok := f.items[kstate.Port{NS: ns, Link: it.Link}.Key()]; it.Master && !ok {
			return "bridge membership of " + it.Link
		}
	case kstate.Route:
		if _, ok := f.items[kstate.Up{NS: ns, Link: it.Link}.Key()]; !ok {
			return "up on " + it.Link
		}
	case kstate.NFSet:
		return f.need(kstate.Table{NS: ns, Family: it.Family})
	case kstate.Elem:
		return f.need(kstate.NFSet{NS: ns, Family: it.Family, Name: it.Set})
	case kstate.Chain:
		for _, w := range strings.Fields(it.Rules) {
			if name, ok := strings.CutPrefix(w, "@"); ok && f.need(kstate.NFSet{NS: ns, Family: it.Family, Name: name}) != "" {
				return "set " + name
			}
		}
		return f.need(kstate.Table{NS: ns, Family: it.Family})
	}
	return ""
}

func (f *fakeKernel) need(it kstate.Item) string {
	if _, ok := f.items[it.Key()]; !ok {
		return it.String()
	}
	return ""
}

func (f *fakeKernel) hasNS(name string) bool {
	_, ok := f.items[kstate.NetNS{Name: name}.Key()]
	return ok || name == kstate.Host
}

// hasLink finds a link by either end.
func (f *fakeKernel) hasLink(ns, name string) bool {
	if name == "lo" {
		return true
	}
	if f.ends == nil {
		f.ends = map[place]bool{}
		for _, e := range f.items {
			if l, ok := e.Item.(kstate.Link); ok {
				f.ends[place{l.NS, l.Name}] = true
				if l.Kind == kstate.KindVeth {
					f.ends[place{l.PeerNS, l.PeerName}] = true
				}
			}
		}
	}
	return f.ends[place{ns, name}]
}

var errExists = errors.New("file exists")

// free refuses what collides with something else.
func (f *fakeKernel) free(it kstate.Item) error {
	_, isLink := it.(kstate.Link)
	if e, ok := it.(kstate.Elem); !isLink && (!ok || e.Set != "subnets") {
		return nil
	}
	for k, e := range f.items {
		if k == it.Key() {
			continue
		}
		switch h := e.Item.(type) {
		case kstate.Link:
			w, ok := it.(kstate.Link)
			if !ok {
				continue
			}
			ends := map[string]bool{w.NS + "/" + w.Name: true}
			if w.Kind == kstate.KindVeth {
				ends[w.PeerNS+"/"+w.PeerName] = true
			}
			if ends[h.NS+"/"+h.Name] || h.Kind == kstate.KindVeth && ends[h.PeerNS+"/"+h.PeerName] {
				return fmt.Errorf("name: %w", errExists)
			}
			if w.Kind == kstate.KindVXLAN && h.Kind == w.Kind && w.VNI == h.VNI && w.Port == h.Port && w.Underlay == h.Underlay {
				return fmt.Errorf("vni: %w", errExists)
			}
		case kstate.Elem:
			w, ok := it.(kstate.Elem)
			if !ok || w.Set != "subnets" || h.Set != w.Set || h.NS != w.NS || h.Family != w.Family {
				continue
			}
			if netip.MustParsePrefix(w.Value).Overlaps(netip.MustParsePrefix(h.Value)) {
				return fmt.Errorf("interval: %w", errExists)
			}
		}
	}
	return nil
}

// named reports whether a chain looks a set up.
func (f *fakeKernel) named(s kstate.NFSet) bool {
	for _, e := range f.items {
		c, ok := e.Item.(kstate.Chain)
		if ok && c.NS == s.NS && c.Family == s.Family && strings.Contains(" "+strings.ReplaceAll(c.Rules, "\n", " ")+" ", " @"+s.Name+" ") {
			return true
		}
	}
	return false
}

// forget drops what a bridge knew behind a port that changes bridges.
func (f *fakeKernel) forget(p kstate.Port) {
	maps.DeleteFunc(f.items, func(k kstate.Key, e kstate.Entry) bool {
		fdb, ok := e.Item.(kstate.FDB)
		return ok && fdb.Master && fdb.NS == p.NS && fdb.Link == p.Link
	})
}
