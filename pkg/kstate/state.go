package kstate

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Names that weft gives to what it makes, everywhere the same.
const (
	Host           = ""        // the host's namespace
	Transit        = "weft-t"  // the namespace that encrypted VXLAN lives in
	NetworkPrefix  = "weft-n-" // + network id: a network's namespace
	EndpointPrefix = "weft-e-" // + short hash of the endpoint id: our reference on an endpoint's namespace
	LegPrefix      = "weftx"   // + first 8 digits of the network id: host end of an egress leg
	LegInside      = "egress0" // the leg's other end, inside the network's namespace
	WGPrefix       = "weftwg"  // + 0 or 1: WireGuard devices in Transit
	Bridge         = "br0"
	VXLAN          = "vxlan0"
	TableName      = "weft" // the nftables table weft owns, in every namespace and family
	RouteProtocol  = 87     // 'W': marks routes as ours (rtm_protocol, linux/rtnetlink.h; 87 is unassigned in rt_protos)
	Mark           = "weft" // interface alias prefix, rule comment and table comment of what is ours outside our namespaces
)

// Stage orders operations: adds run in rising order, removals in falling order.
type Stage int

// The stages. Links come up before routes, because the kernel refuses a route over a link that is down.
const (
	StageNamespace Stage = iota
	StageFence           // sysctls, nftables
	StageLink            // links, still down
	StageWireGuard       // WireGuard devices' keys and peers
	StageAddress         // bridge membership, addresses
	StageForward         // FDB, neighbours
	StageUp              // links up
	StageRoute
)

var stageNames = [...]string{"namespace", "fence", "link", "wireguard", "address", "forward", "up", "route"}

func (s Stage) String() string { return stageNames[s] }

// Key identifies an item. Kind is the first word of the item's golden text.
type Key struct {
	NS   string
	Kind string
	Name string // unique within NS and Kind
}

// Item is one object of kernel state. Implementations are comparable structs in this package.
type Item interface {
	// Key identifies the object the item describes.
	Key() Key
	// Stage says when it is made.
	Stage() Stage
	// On names the link in Key().NS that the item disappears with, "" for none.
	On() string
	// String is the golden-text line without the namespace.
	String() string
}

// Entry is an Item with the network it belongs to: the network's id, TransitGroup, or "" for what all share.
type Entry struct {
	Group string
	Item  Item
}

// TransitGroup is the group of what encrypted networks share.
const TransitGroup = "transit"

// State is a set of items. The zero value is not usable; use NewState. Not safe for concurrent use.
type State struct {
	Entries map[Key]Entry
	// Depends names, per group, the groups without which it must not be built ("" is implied): an encrypted network
	// depends on TransitGroup.
	Depends map[string][]string
	// Prune says for which groups absent items may be removed. Groups the state does not know at all follow "".
	// Only a wanted state carries it.
	Prune map[string]bool
}

// NewState returns an empty state.
func NewState() *State {
	return &State{Entries: map[Key]Entry{}, Depends: map[string][]string{}, Prune: map[string]bool{}}
}

// Put adds it, replacing what has the same key.
func (s *State) Put(group string, it Item) { s.Entries[it.Key()] = Entry{Group: group, Item: it} }

// Has reports whether an item with key k is present.
func (s *State) Has(k Key) bool { _, ok := s.Entries[k]; return ok }

// Sorted returns the entries ordered by namespace, stage, kind and name.
func (s *State) Sorted() []Entry {
	out := slices.Collect(maps.Values(s.Entries))
	slices.SortFunc(out, func(a, b Entry) int {
		ka, kb := a.Item.Key(), b.Item.Key()
		return cmp.Or(cmp.Compare(ka.NS, kb.NS), cmp.Compare(a.Item.Stage(), b.Item.Stage()),
			cmp.Compare(ka.Kind, kb.Kind), cmp.Compare(ka.Name, kb.Name))
	})
	return out
}

// String is the golden text: one block per namespace, one line per item.
func (s *State) String() string {
	var b strings.Builder
	ns, first := "", true
	for _, e := range s.Sorted() {
		if k := e.Item.Key(); first || k.NS != ns {
			ns, first = k.NS, false
			b.WriteString("netns " + nsName(ns) + "\n")
		}
		b.WriteString("  " + strings.ReplaceAll(e.Item.String(), "\n", "\n    ") + "\n")
	}
	return b.String()
}

func nsName(ns string) string {
	if ns == Host {
		return "(host)"
	}
	return ns
}

// Verb is what an Op does.
type Verb string

// The verbs. Add tolerates what exists, Remove what is absent; Set changes an existing object in place.
const (
	Add    Verb = "add"
	Set    Verb = "set"
	Remove Verb = "remove"
)

// Op is one change of the kernel. Item is the wanted item for Add and Set, the existing one for Remove; Old is the
// existing item for Set.
type Op struct {
	Verb  Verb
	Group string
	Item  Item
	Old   Item
}

// String is the golden-text line of the operation.
func (o Op) String() string {
	s := string(o.Verb) + " " + nsName(o.Item.Key().NS) + " " + o.Item.String()
	if o.Verb == Set && o.Old != nil {
		s += "   # was " + o.Old.String()
	}
	return s
}

// Same reports whether have needs no change to be want. It is equality, but for what the kernel decides by itself:
// a WireGuard peer with a fresh handshake keeps the endpoint it roamed to, and what want leaves unmanaged in a link
// may be anything.
func Same(want, have Item) bool {
	switch w := want.(type) {
	case WGPeer:
		h, ok := have.(WGPeer)
		return ok && w.same(h)
	case Link:
		h, ok := have.(Link)
		return ok && w.same(h)
	}
	return want == have
}

// Recreate reports whether changing have into want needs the object removed and made again.
func Recreate(want, have Item) bool {
	switch w := want.(type) {
	case Link:
		h, ok := have.(Link)
		return !ok || w.identity() != h.identity()
	case Table, Elem, Addr, NetNS, NFSet:
		return want != have
	case Chain:
		h, ok := have.(Chain)
		return !ok || w.Type != h.Type || w.Hook != h.Hook || w.Priority != h.Priority
	}
	return false
}
