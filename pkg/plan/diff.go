package plan

import (
	"cmp"
	"slices"

	"weft/pkg/kstate"
)

// Diff returns the operations that lead from have to want, in the order in which they must be applied.
//
// First everything that is added or changed, by rising stage: fences before links, links before what stands on them.
// Then removals, by falling stage. So nothing is taken away before its successor works. Three things cannot wait:
//
//   - What can only be changed by making it again (kstate.Recreate) is removed directly before it is added. Whatever
//     the kernel drops along with it counts as absent and is added again in its own stage.
//   - What stands in the way of a new item (the same name at a veth's far end, the same VNI on the same underlay, an
//     overlapping range in an interval set) is removed directly before that item: the kernel would refuse it with
//     "exists". That is in the stage of both, so never before a fence.
//   - A chain is removed before a set that it names is made again: the kernel refuses to remove a set in use.
//
// What the kernel drops along with a removed link or namespace gets no operation of its own, with one exception: a link
// that reaches out of a removed namespace. Deleting a link is done when the call returns; deleting a namespace is not
// (the kernel does it later, and not while a socket in it is open), and until then the VNI or the far end's name is
// taken.
//
// Removal needs want.Prune of the item's group, see groups. Sysctls are never removed, nor is a loopback interface ever
// taken down. What a group that must not be pruned would lose to a recreation is put back as it was.
func Diff(want, have *kstate.State) []kstate.Op {
	d := &differ{
		want: want, have: have, groups: newGroups(want, have), deps: newDependents(have),
		add: map[kstate.Key]kstate.Entry{}, remade: map[kstate.Key]bool{}, early: map[kstate.Key][]kstate.Key{},
		taken: map[kstate.Key]bool{}, gone: map[kstate.Key]bool{}, drop: map[kstate.Key]bool{},
	}
	d.compare()
	d.settleConflicts()
	d.restore()
	return append(d.adds(), d.removals()...)
}

// differ holds one run of Diff. All keys but those of add are keys of have.
type differ struct {
	want, have *kstate.State
	groups     *groups
	deps       *dependents

	add    map[kstate.Key]kstate.Entry // wanted and not there, or there and different
	remade map[kstate.Key]bool         // there, to be removed and made again
	drop   map[kstate.Key]bool         // there, not wanted, may be removed
	early  map[kstate.Key][]kstate.Key // removals that come directly before an add
	taken  map[kstate.Key]bool         // all values of early
	gone   map[kstate.Key]bool         // there, but vanishes before or while things are added
}

// compare sorts the items into those to add, to change, to make again and to remove.
func (d *differ) compare() {
	both := 0
	for k, w := range d.want.Entries {
		h, there := d.have.Entries[k]
		if there {
			both++
		}
		switch {
		case !there:
			d.add[k] = w
		case kstate.Same(w.Item, h.Item):
		case kstate.Recreate(w.Item, h.Item):
			d.remake(k)
		default:
			d.add[k] = w
			if w, h, ok := ports(w.Item, h.Item); ok && w.Bridge != h.Bridge {
				d.vanish(d.deps.masterFDB(h.NS, h.Link)) // the old bridge forgets the port's entries
			}
		}
	}
	if both == len(d.have.Entries) {
		return // nothing is left over
	}
	for k, h := range d.have.Entries {
		if !d.want.Has(k) && !d.gone[k] && d.groups.mayRemove(k, h.Item) {
			d.drop[k] = true
		}
	}
}

func ports(want, have kstate.Item) (w, h kstate.Port, ok bool) {
	w, isPort := want.(kstate.Port)
	h, wasPort := have.(kstate.Port)
	return w, h, isPort && wasPort
}

// remake marks an existing item as removed and added again.
func (d *differ) remake(k kstate.Key) {
	d.remade[k] = true
	d.add[k] = d.want.Entries[k]
	it := d.have.Entries[k].Item
	if set, ok := it.(kstate.NFSet); ok {
		for _, c := range d.deps.chainsNaming(set) {
			d.takeBefore(k, c)
		}
	}
	d.vanish(d.deps.of(it))
}

// takeBefore marks an existing item as removed directly before another is added.
func (d *differ) takeBefore(add, k kstate.Key) {
	if d.gone[k] && !d.taken[k] {
		return // it goes with something else
	}
	d.taken[k] = true
	if !d.remade[k] { // a remade one is removed anyway, at the earlier of the two moments
		d.vanish([]kstate.Key{k})
	}
	d.early[add] = append(d.early[add], k)
	d.vanish(d.deps.of(d.have.Entries[k].Item))
}

// vanish marks items as lost while things are added; the wanted ones are added again.
func (d *differ) vanish(keys []kstate.Key) {
	for _, k := range keys {
		d.gone[k] = true
		delete(d.drop, k)
		if w, ok := d.want.Entries[k]; ok {
			d.add[k] = w
		}
	}
}

// restore puts back what is neither wanted nor removable, but was lost to something that is made again. The elements of
// a set of another type cannot be.
func (d *differ) restore() {
	for k := range d.remade {
		var lost []kstate.Key
		switch it := d.have.Entries[k].Item.(type) {
		case kstate.Link:
			lost = d.deps.of(it)
		case kstate.NFSet:
			lost = d.deps.chainsNaming(it)
		}
		for _, dep := range lost {
			h := d.have.Entries[dep]
			if !d.want.Has(dep) && !d.groups.mayRemove(dep, h.Item) && !d.moved(k, h.Item) {
				d.add[dep] = kstate.Entry{Group: d.groups.of(dep, h.Item), Item: h.Item}
			}
		}
	}
}

// moved reports whether an item stands on a far end that has another name, or is elsewhere, once link k is made again.
func (d *differ) moved(k kstate.Key, it kstate.Item) bool {
	have, _ := d.have.Entries[k].Item.(kstate.Link)
	want, _ := d.want.Entries[k].Item.(kstate.Link)
	from, to := place{have.PeerNS, have.PeerName}, place{want.PeerNS, want.PeerName}
	return have.Kind == kstate.KindVeth && from != to && from == place{it.Key().NS, it.On()}
}

// adds are the operations that make and change, by rising stage.
func (d *differ) adds() []kstate.Op {
	var ops []kstate.Op
	removed := map[kstate.Key]bool{}
	remove := func(k kstate.Key, group string) {
		if !removed[k] {
			removed[k] = true
			ops = append(ops, kstate.Op{Verb: kstate.Remove, Group: group, Item: d.have.Entries[k].Item})
		}
	}
	for _, k := range order(d.add) {
		e := d.add[k]
		early := d.early[k]
		slices.SortFunc(early, compareKeys)
		for _, k := range early {
			remove(k, d.groups.of(k, d.have.Entries[k].Item))
		}
		h, there := d.have.Entries[k]
		if d.remade[k] {
			remove(k, e.Group)
		}
		if there && !d.gone[k] && !d.remade[k] {
			ops = append(ops, kstate.Op{Verb: kstate.Set, Group: e.Group, Item: keepRoamed(e.Item, h.Item), Old: h.Item})
			continue
		}
		ops = append(ops, kstate.Op{Verb: kstate.Add, Group: e.Group, Item: e.Item})
	}
	return ops
}

// keepRoamed leaves a peer the endpoint that a fresh handshake proved, when something else of it changes.
func keepRoamed(want, have kstate.Item) kstate.Item {
	w, isPeer := want.(kstate.WGPeer)
	if h, ok := have.(kstate.WGPeer); isPeer && ok && h.Fresh {
		w.Endpoint = h.Endpoint
		return w
	}
	return want
}

// removals are the operations that take away what is left over, by falling stage.
func (d *differ) removals() []kstate.Op {
	covered := map[kstate.Key]bool{}
	for k := range d.drop {
		for _, dep := range d.deps.of(d.have.Entries[k].Item) {
			covered[dep] = covered[dep] || !d.deps.reachesOut(dep)
		}
	}
	left := map[kstate.Key]kstate.Entry{}
	for k := range d.drop {
		if !covered[k] {
			left[k] = d.have.Entries[k]
		}
	}
	var ops []kstate.Op
	keys := order(left)
	slices.Reverse(keys)
	for _, k := range keys {
		it := left[k].Item
		ops = append(ops, kstate.Op{Verb: kstate.Remove, Group: d.groups.of(k, it), Item: it})
	}
	return ops
}

// order sorts by stage, then namespace, kind and name; kinds of one stage sort by need (table, set, element, chain).
func order(m map[kstate.Key]kstate.Entry) []kstate.Key {
	type staged struct {
		stage kstate.Stage
		key   kstate.Key
	}
	all := make([]staged, 0, len(m))
	for k, e := range m {
		all = append(all, staged{e.Item.Stage(), k})
	}
	slices.SortFunc(all, func(a, b staged) int {
		return cmp.Or(cmp.Compare(a.stage, b.stage), compareKeys(a.key, b.key))
	})
	keys := make([]kstate.Key, len(all))
	for i, s := range all {
		keys[i] = s.key
	}
	return keys
}

func compareKeys(a, b kstate.Key) int {
	return cmp.Or(cmp.Compare(a.NS, b.NS), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}
