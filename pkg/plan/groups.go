package plan

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"weft/pkg/kstate"
)

// groups tells which network an existing item belongs to, whatever its observer thought, and whether it may go:
//
//	item                                         group
//	anything that is wanted                      as wanted
//	in weft-n-<id>                               <id>
//	in weft-t                                    TransitGroup, set elements excepted
//	in weft-e-<hash>                             that of the wanted namespace of this name, else ""
//	on a leg weftx<8 digits> in the host         the known network whose id begins so, else ""
//	element of a set in weft-t or the host       the network of its VNI, when it has one that is known
//	anything else                                ""
//
// A group that want does not know follows "". An element of a set in weft-t or the host whose network cannot be told
// may belong to a network that is frozen because its record is missing (its VNI or subnet is then unknown); to remove
// it could open that network's fence. So it goes only when nothing at all is frozen.
type groups struct {
	want, have *kstate.State
	vnis       map[string]string // decimal VNI -> group, made when asked for
	open       bool              // nothing is frozen
}

func newGroups(want, have *kstate.State) *groups {
	g := &groups{want: want, have: have, open: want.Prune[""]}
	for _, may := range want.Prune {
		g.open = g.open && may
	}
	return g
}

// vni finds the network of a VNI by the VXLAN devices that are wanted or there.
func (g *groups) vni(decimal string) (group string, known bool) {
	if g.vnis == nil {
		g.vnis = map[string]string{}
		for _, s := range []*kstate.State{g.want, g.have} {
			for k, e := range s.Entries {
				id, inNetwork := strings.CutPrefix(k.NS, kstate.NetworkPrefix)
				if l, ok := e.Item.(kstate.Link); ok && inNetwork && l.Kind == kstate.KindVXLAN {
					g.claimVNI(strconv.FormatUint(uint64(l.VNI), 10), id)
				}
			}
		}
	}
	group, known = g.vnis[decimal]
	return group, known
}

// claimVNI settles a VNI that two networks have: the frozen one gets it (keep rather than lose), else the lesser id.
func (g *groups) claimVNI(decimal, id string) {
	other, taken := g.vnis[decimal]
	may, mayOther := g.prune(id), g.prune(other)
	if !taken || mayOther && !may || may == mayOther && id < other {
		g.vnis[decimal] = id
	}
}

// of is the group of an existing item.
func (g *groups) of(k kstate.Key, it kstate.Item) string {
	if w, ok := g.want.Entries[k]; ok {
		return w.Group
	}
	if id, ok := strings.CutPrefix(k.NS, kstate.NetworkPrefix); ok {
		return id
	}
	switch e, isElem := it.(kstate.Elem); {
	case isElem:
		id, _ := g.ofElem(e)
		return id
	case k.NS == kstate.Transit:
		return kstate.TransitGroup
	case strings.HasPrefix(k.NS, kstate.EndpointPrefix):
		return g.want.Entries[kstate.NetNS{Name: k.NS}.Key()].Group
	case k.NS == kstate.Host:
		return g.ofLeg(it.On())
	}
	return ""
}

// ofElem is the network of an element of a shared set: the last field of a pair, or the whole element, is a VNI. known
// is false when no network here has it, or when it holds none.
func (g *groups) ofElem(e kstate.Elem) (group string, known bool) {
	switch e.Set {
	case "members", "vnis":
		return g.vni(e.Value[strings.LastIndexByte(e.Value, ' ')+1:])
	}
	return "", false
}

// ofLeg is the network whose leg a host interface is.
func (g *groups) ofLeg(link string) string {
	digits, isLeg := strings.CutPrefix(link, kstate.LegPrefix)
	if !isLeg || digits == "" {
		return ""
	}
	ids := slices.Sorted(maps.Keys(g.want.Prune))
	ids = slices.DeleteFunc(ids, func(id string) bool { return !strings.HasPrefix(id, digits) })
	for _, id := range ids {
		if !g.want.Prune[id] {
			return id // of two that share the digits, the frozen one: keep rather than lose
		}
	}
	if len(ids) > 0 {
		return ids[0]
	}
	return ""
}

// mayRemove reports whether an existing item that is not wanted may be removed.
func (g *groups) mayRemove(k kstate.Key, it kstate.Item) bool {
	switch it := it.(type) {
	case kstate.Sysctl:
		return false // there is no "absent" for a kernel parameter, and nobody wrote down what it was
	case kstate.Up:
		if it.Link == lo {
			return false // others may rely on it, and it ends with its namespace
		}
	case kstate.Elem:
		if k.NS == kstate.Host || k.NS == kstate.Transit {
			if _, known := g.ofElem(it); !known {
				return g.open
			}
		}
	}
	return g.prune(g.of(k, it))
}

func (g *groups) prune(group string) bool {
	if may, known := g.want.Prune[group]; known {
		return may
	}
	return g.want.Prune[""]
}
