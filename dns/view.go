package dns

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"weft/pkg/overlay"
)

// View is all names of all networks at one moment. It is immutable and safe for concurrent use.
type View struct {
	networks map[string]zone
}

// zone is the names of one network, lower case, without the network's own name: "api", "tasks.api", "web-1". A name
// without addresses has others below it, as "1" has when there is "db.1".
type zone map[string][]netip.Addr

// Build makes the view of a snapshot; nil makes an empty one.
func Build(s *overlay.Snapshot) *View {
	v := &View{networks: map[string]zone{}}
	if s == nil {
		return v
	}
	for _, n := range s.Networks {
		if !n.Alive() {
			continue
		}
		z := zone{}
		for _, set := range s.On(n.ID) {
			for _, e := range set.Endpoints {
				// What the data path leaves out must not be answered either: it would lead out of the network.
				if n.Subnet().Contains(e.Address) && e.Address != n.Gateway {
					z.add(e)
				}
			}
		}
		for name := range z {
			slices.SortFunc(z[name], netip.Addr.Compare)
			z[name] = slices.Compact(z[name])
		}
		z.addParents()
		v.networks[strings.ToLower(n.Name)] = z
	}
	return v
}

func (z zone) add(e overlay.Endpoint) {
	put := func(name string) { z[strings.ToLower(name)] = append(z[strings.ToLower(name)], e.Address) }
	put(e.Name)
	for _, s := range e.Services {
		put(s)
		put("tasks." + s)
	}
	for _, alias := range e.Aliases {
		put(alias)
	}
}

// addParents adds the names that only have others below them. They exist too (RFC 8020 section 2): a resolver may take
// "no such name" about one as said about all below it.
func (z zone) addParents() {
	for _, name := range slices.Collect(maps.Keys(z)) {
		for _, parent, ok := strings.Cut(name, "."); ok; _, parent, ok = strings.Cut(parent, ".") {
			if _, there := z[parent]; !there {
				z[parent] = nil
			}
		}
	}
}

// answer is what a view says about a name.
type answer int

const (
	notOurs answer = iota // not a name of this network: forward it
	unknown               // in our zone, and not there: NXDOMAIN
	known                 // there; without addresses when only names below it have some
)

// lookup finds name (lower case, no final dot) as seen from a network. Names are tried as they are, below the network's
// name in the domain, below the network's name, and below the domain. apex is the zone that an answer which is not
// notOurs belongs to: what name is below of, or name itself.
func (v *View) lookup(network, domain, name string) (addrs []netip.Addr, apex string, is answer) {
	network = strings.ToLower(network)
	z := v.networks[network]
	if addrs := z[name]; len(addrs) > 0 {
		return addrs, name, known
	}
	// A bare name that only has others below it is not ours: with an alias api.example.org, example.org stays what it is.
	there := false
	for _, zone := range []string{network + "." + domain, network, domain} {
		rest, below := strings.CutSuffix(name, "."+zone)
		if !below && name != zone {
			continue
		}
		if apex == "" {
			apex, is = zone, unknown
		}
		if !below {
			there = true
			continue
		}
		addrs, ok := z[rest]
		if len(addrs) > 0 {
			return addrs, zone, known
		}
		there = there || ok
	}
	if there {
		is = known
	}
	return nil, apex, is
}
