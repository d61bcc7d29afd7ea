package dns

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"weft/pkg/overlay"
)

// TTL of all answers, in seconds: how long a client may use an address that is gone.
const TTL = 5

// Input is what a view is made from.
type Input struct {
	// Snapshot may be nil: a view without names.
	Snapshot *overlay.Snapshot
	// Domain is the domain below which every name is also known, without dots at its ends.
	Domain string
	// Self is this node's name and PreferLocal says that its own instances are answered first.
	Self        string
	PreferLocal bool
	// Dead names the nodes whose endpoints are not answered although they never said goodbye.
	Dead map[string]bool
	// Follows names the networks whose endpoints the snapshot holds all of; nil means every network.
	Follows map[string]bool
}

// Builder makes views. It remembers what the last one was made from, so that the next costs what has changed and not
// what there is. Not safe for concurrent use; the views are.
type Builder struct {
	domain []byte
	self   string
	local  bool
	nets   map[overlay.NetworkID]*netBuild
}

// Build makes the view of one input from nothing.
func Build(in Input) *View { return new(Builder).Build(in) }

// Build makes the view of an input.
func (b *Builder) Build(in Input) *View {
	domain, ok := wireName(in.Domain)
	if !ok {
		domain = []byte{0}
	}
	if b.nets == nil || !bytes.Equal(domain, b.domain) || in.Self != b.self || in.PreferLocal != b.local {
		b.domain, b.self, b.local = domain, in.Self, in.PreferLocal
		b.nets = map[overlay.NetworkID]*netBuild{}
	}
	v := &View{domain: domain, zones: map[string]*zone{}, byWire: map[string]*zone{}, above: map[string]bool{}}
	s := in.Snapshot
	if s == nil {
		b.nets = nil
		return v
	}
	seen := map[overlay.NetworkID]bool{}
	for _, name := range slices.Sorted(maps.Keys(s.Networks)) {
		n := s.Networks[name]
		if !n.Alive() {
			continue
		}
		wire, ok := wireName(n.Name)
		if !ok {
			continue
		}
		seen[n.ID] = true
		nb := b.nets[n.ID]
		if nb == nil {
			nb = newNetBuild(n, wire, domain)
			b.nets[n.ID] = nb
		}
		z := nb.update(n, s, in)
		v.zones[strings.ToLower(n.Name)] = z
		rel := wire[:len(wire)-1]
		v.byWire[string(rel)] = z
		for above := parent(string(rel)); above != ""; above = parent(above) {
			v.above[above] = true
		}
		for _, svc := range slices.Sorted(maps.Keys(nb.failing)) {
			v.failing = append(v.failing, svc+" on "+n.Name)
		}
	}
	maps.DeleteFunc(b.nets, func(id overlay.NetworkID, _ *netBuild) bool { return !seen[id] })
	return v
}

// parent is a wire name without its first label, "" when it has no more.
func parent(rel string) string {
	if rel == "" {
		return ""
	}
	return rel[1+int(rel[0]):]
}

// netBuild is the state of one network between builds.
type netBuild struct {
	zone *zone
	sets map[string]setState
	// names holds who stands at each name, and parents how many names stand below one.
	names   map[string][]*instance
	parents map[string]int
	addrs   map[netip.Addr][]*instance
	failing map[string]bool

	next       *zone // under construction; nil when nothing changed
	dirty      map[string]bool
	copied     [shards]bool
	copiedAddr [shards]bool
}

// setState is what one node's record was made into.
type setState struct {
	revision uint64
	dead     bool
	endpoint map[overlay.EndpointID]overlay.Endpoint
	instance map[overlay.EndpointID]*instance
	out      map[overlay.EndpointID]*instance // has no names
}

func newNetBuild(n overlay.Network, wire, domain []byte) *netBuild {
	rel := wire[:len(wire)-1]
	z := &zone{network: n, suffixes: [3][]byte{slices.Concat(rel, domain), wire, domain}, forward: conditionals(n), asked: new(atomic.Int64)}
	return &netBuild{zone: z, sets: map[string]setState{}, names: map[string][]*instance{}, parents: map[string]int{},
		addrs: map[netip.Addr][]*instance{}, failing: map[string]bool{}, dirty: map[string]bool{}}
}

// update follows a snapshot and returns the zone of it.
func (nb *netBuild) update(n overlay.Network, s *overlay.Snapshot, in Input) *zone {
	nb.next, nb.copied, nb.copiedAddr = nil, [shards]bool{}, [shards]bool{}
	if !sameNetwork(nb.zone.network, n) {
		z := nb.change()
		z.network = n
		z.forward = conditionals(n)
	}
	if followed := in.Follows == nil || in.Follows[n.Name]; followed != nb.zone.followed {
		nb.change().followed = followed
	}
	here := map[string]bool{}
	for _, set := range s.On(n.ID) {
		here[set.Node] = true
		nb.updateSet(n, s, set, in)
	}
	for node, st := range nb.sets {
		if here[node] {
			continue
		}
		for _, i := range st.instance {
			nb.drop(i)
		}
		delete(nb.sets, node)
		nb.change()
	}
	for name := range nb.dirty {
		nb.rebuild(name)
	}
	clear(nb.dirty)
	if nb.next != nil {
		nb.next.out = nb.out()
		nb.zone, nb.next = nb.next, nil
	}
	return nb.zone
}

func sameNetwork(a, b overlay.Network) bool {
	return a.Name == b.Name && a.Gateway == b.Gateway && slices.Equal(a.Subnets, b.Subnets) && maps.Equal(a.Labels, b.Labels) &&
		a.Revision == b.Revision
}

// change is the zone under construction.
func (nb *netBuild) change() *zone {
	if nb.next == nil {
		z := *nb.zone
		nb.next = &z
	}
	return nb.next
}

func (nb *netBuild) updateSet(n overlay.Network, s *overlay.Snapshot, set overlay.EndpointSet, in Input) {
	st, had := nb.sets[set.Node]
	dead := in.Dead[set.Node]
	if had && st.revision == set.Revision && set.Revision != 0 && st.dead == dead {
		return
	}
	if !had {
		st = setState{endpoint: map[overlay.EndpointID]overlay.Endpoint{}, instance: map[overlay.EndpointID]*instance{},
			out: map[overlay.EndpointID]*instance{}}
	}
	group := 0
	switch self := s.Nodes[in.Self]; {
	case set.Node == in.Self && in.PreferLocal:
	case in.Self == "" || s.Nodes[set.Node].Datacenter == self.Datacenter:
		group = 1
	default:
		group = 2
	}
	there := map[overlay.EndpointID]bool{}
	for _, e := range set.Endpoints {
		there[e.ID] = true
		old, had := st.endpoint[e.ID]
		if had && st.dead == dead && sameEndpoint(old, e) {
			continue
		}
		if i := st.instance[e.ID]; i != nil {
			nb.drop(i)
			delete(st.instance, e.ID)
		}
		st.endpoint[e.ID] = e
		delete(st.out, e.ID)
		nb.change()
		// What the data path leaves out must not be answered either: it would lead out of the network.
		if dead || e.Health == overlay.HealthDraining || !n.Subnet().Contains(e.Address) || e.Address == n.Gateway {
			st.out[e.ID] = leftOut(n, set.Node, e, dead)
			continue
		}
		i := nb.instance(n, set.Node, e, group)
		st.instance[e.ID] = i
		nb.put(i)
	}
	for id := range st.endpoint {
		if there[id] {
			continue
		}
		if i := st.instance[id]; i != nil {
			nb.drop(i)
			delete(st.instance, id)
		}
		delete(st.endpoint, id)
		delete(st.out, id)
		nb.change()
	}
	st.revision, st.dead = set.Revision, dead
	nb.sets[set.Node] = st
}

func sameEndpoint(a, b overlay.Endpoint) bool {
	return a.Name == b.Name && a.Address == b.Address && a.Health == b.Health && slices.Equal(a.Services, b.Services) &&
		slices.Equal(a.Aliases, b.Aliases) && slices.Equal(a.Ports, b.Ports)
}

// instance makes an endpoint's packed records and the list of its names.
func (nb *netBuild) instance(n overlay.Network, node string, e overlay.Endpoint, group int) *instance {
	i := &instance{id: e.ID, name: strings.ToLower(e.Name), node: node, network: n.Name, addr: e.Address, health: e.Health, group: group,
		a: packAddr(e.Address), services: map[string]bool{}}
	own, ok := wireName(e.Name)
	if ok {
		i.target = slices.Concat(own[:len(own)-1], nb.zone.suffixes[0])
		if len(i.target) > maxName {
			i.target = slices.Concat(own[:len(own)-1], nb.zone.suffixes[1])
		}
	}
	seen := map[string]bool{}
	add := func(name string, port uint16) {
		w, ok := wireName(name)
		if !ok || seen[string(w)] || len(w) == 1 {
			return
		}
		seen[string(w)] = true
		rel := string(w[:len(w)-1])
		i.names = append(i.names, rel)
		if port != 0 {
			if i.ports == nil {
				i.ports = map[string]uint16{}
			}
			i.ports[rel] = port
		}
	}
	all := func(name string) {
		add(name, 0)
		for _, p := range e.Ports {
			add("_"+p.Name+"._"+p.Proto+"."+name, p.Port)
		}
	}
	all(e.Name)
	for _, s := range e.Services {
		if w, ok := wireName(s); ok {
			i.services[string(w[:len(w)-1])] = true
		}
		all(s)
		add("tasks."+s, 0)
		add(s+"."+node+".node", 0)
	}
	for _, alias := range e.Aliases {
		all(alias)
	}
	return i
}

func (nb *netBuild) put(i *instance) {
	for _, name := range i.names {
		nb.names[name] = append(nb.names[name], i)
		nb.dirty[name] = true
		if len(nb.names[name]) > 1 {
			continue
		}
		// The names that only have others below them exist too (RFC 8020 section 2): a resolver may take "no such name"
		// about one as said about all below it.
		for p := parent(name); p != ""; p = parent(p) {
			nb.parents[p]++
			nb.dirty[p] = true
		}
	}
	nb.addrs[i.addr] = append(nb.addrs[i.addr], i)
	nb.reverse(i.addr, packPTR(i.target))
}

func (nb *netBuild) drop(i *instance) {
	for _, name := range i.names {
		nb.dirty[name] = true
		left := slices.DeleteFunc(nb.names[name], func(x *instance) bool { return x == i })
		if len(left) > 0 {
			nb.names[name] = left
			continue
		}
		delete(nb.names, name)
		for p := parent(name); p != ""; p = parent(p) {
			if nb.parents[p]--; nb.parents[p] == 0 {
				delete(nb.parents, p)
			}
			nb.dirty[p] = true
		}
	}
	left := slices.DeleteFunc(nb.addrs[i.addr], func(x *instance) bool { return x == i })
	if n := len(left); n > 0 { // the address has a new holder already
		nb.addrs[i.addr] = left
		nb.reverse(i.addr, packPTR(left[n-1].target))
		return
	}
	delete(nb.addrs, i.addr)
	nb.reverse(i.addr, nil)
}

func (nb *netBuild) reverse(a netip.Addr, ptr []byte) {
	z, n := nb.change(), addrShard(a)
	if !nb.copiedAddr[n] {
		nb.copiedAddr[n] = true
		m := make(map[netip.Addr][]byte, len(z.reverse[n])+1)
		maps.Copy(m, z.reverse[n])
		z.reverse[n] = m
	}
	if ptr == nil {
		delete(z.reverse[n], a)
		return
	}
	z.reverse[n][a] = ptr
}

// rebuild makes the entry of one name anew.
func (nb *netBuild) rebuild(name string) {
	z, n := nb.change(), shardOf([]byte(name))
	if !nb.copied[n] {
		nb.copied[n] = true
		m := make(map[string]*entry, len(z.names[n])+1)
		maps.Copy(m, z.names[n])
		z.names[n] = m
	}
	instances := nb.names[name]
	switch {
	case len(instances) > 0:
		e, failing := newEntry(name, instances)
		z.names[n][name] = e
		if failing && instances[0].services[name] {
			nb.failing[text([]byte(name))] = true
		} else {
			delete(nb.failing, text([]byte(name)))
		}
	case nb.parents[name] > 0:
		z.names[n][name] = &entry{}
		delete(nb.failing, text([]byte(name)))
	default:
		delete(z.names[n], name)
		delete(nb.failing, text([]byte(name)))
	}
}

// out lists the endpoints that are attached but not answered.
func (nb *netBuild) out() (out []*instance) {
	for _, node := range slices.Sorted(maps.Keys(nb.sets)) {
		for _, id := range slices.Sorted(maps.Keys(nb.sets[node].out)) {
			out = append(out, nb.sets[node].out[id])
		}
	}
	return out
}

// leftOut describes an endpoint that has no names, with those it would have.
func leftOut(n overlay.Network, node string, e overlay.Endpoint, dead bool) *instance {
	i := &instance{id: e.ID, name: e.Name, node: node, network: n.Name, addr: e.Address, health: e.Health}
	if dead {
		i.health = "on a dead node"
	}
	for _, name := range slices.Concat([]string{e.Name}, e.Services, e.Aliases) {
		if w, ok := wireName(name); ok {
			i.names = append(i.names, string(w[:len(w)-1]))
		}
	}
	return i
}
