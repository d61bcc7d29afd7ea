package dns

import (
	"hash/maphash"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"weft/pkg/overlay"
)

// shards is into how many parts a zone's names are cut. A change copies only the parts it touches, so a view of
// 10,000 names follows 100 changes a second at the cost of a few hundred names each.
const shards = 256

var seed = maphash.MakeSeed()

func shardOf(rel []byte) int { return int(maphash.Bytes(seed, rel) % shards) }

// View is all names of all networks at one moment. It is immutable and safe for concurrent use.
type View struct {
	domain []byte // wire form
	// zones by the network's name: as text for the networks' own listeners, in wire form without the root label for
	// names that end with it.
	zones  map[string]*zone
	byWire map[string]*zone
	// above holds the wire names that networks with dots in their names stand below.
	above map[string]bool
	// failing names the services all of whose instances fail their check, as "web on my-app".
	failing []string
}

// Asked is when the host's listener was last asked about a network; the zero time for never.
func (v *View) Asked(network string) time.Time {
	if z := v.zones[strings.ToLower(network)]; z != nil && z.asked.Load() > 0 {
		return time.Unix(z.asked.Load(), 0)
	}
	return time.Time{}
}

// Failing lists the services whose instances all fail their health check, so that all are answered nevertheless,
// ordered, each as "web on my-app".
func (v *View) Failing() []string { return v.failing }

// zone is the names of one network. Keys are relative to the network: "api", "tasks.api", "web-1", "_http._tcp.api", in
// wire form without the root label.
type zone struct {
	network overlay.Network
	// suffixes are what a name may end with, in the order they are tried: network.domain, network, domain.
	suffixes [3][]byte
	names    [shards]map[string]*entry
	reverse  [shards]map[netip.Addr][]byte // packed PTR records
	forward  []conditional
	followed bool // its endpoints are known
	// asked is when the host's listener was last asked about it, in seconds since 1970; shared by all its views.
	asked *atomic.Int64
	// out are the endpoints that have no names: drained, or on a node that is dead. For explanations.
	out []*instance
}

// conditional is a zone that is asked of other servers than everything else (a network's label).
type conditional struct {
	suffix  []byte
	servers []netip.AddrPort
}

// entry is what stands at one name. One without instances has others below it, as "1" has when there is "db.1".
type entry struct {
	a, aaaa rrset
	srv     []service
	// instances behind the name, the ones left out included; for explanations.
	instances []*instance
}

func (e *entry) data() bool { return e != nil && len(e.instances) > 0 }

// rrset is packed records of one size, nearest first: groups holds the number of records in each group but the last.
type rrset struct {
	packed []byte
	groups []int
}

// service is one SRV record and the address of its target.
type service struct {
	packed []byte // the record; its target begins at srvTarget
	extra  []byte // type, class, TTL, length and address of the target's record
	group  int
}

// srvTarget is where in a packed SRV record its target begins: behind pointer, type, class, TTL, length, priority,
// weight and port.
const srvTarget = 18

// instance is an endpoint as names see it.
type instance struct {
	id      overlay.EndpointID
	name    string
	node    string
	network string
	addr    netip.Addr
	health  overlay.Health
	target  []byte // its own name below the domain, in wire form
	group   int    // 0 is the nearest
	a       []byte // packed
	names   []string
	// services are those of names that are services; ports are of those that are SRV names.
	services map[string]bool
	ports    map[string]uint16
}

func (z *zone) find(rel []byte) *entry {
	if len(rel) == 0 {
		return nil
	}
	return z.names[shardOf(rel)][string(rel)]
}

func addrShard(a netip.Addr) int {
	b := a.As16()
	return int(b[15])
}

// answer is what a view says about a name.
type answer int

const (
	notOurs answer = iota // not a name of ours: forward it
	unknown               // in our zone, and not there: NXDOMAIN
	known                 // there; without an entry when only names below it have records
)

// found is the result of a lookup.
type found struct {
	is    answer
	entry *entry
	ptr   []byte
	apex  int // offset in the name of the zone that the answer belongs to
	zone  *zone
}

// lookup finds a query's name as seen on a network's listener. Names are tried as they are, below the network's name
// in the domain, below the network's name, and below the domain: so the longest name wins, and one with dots in it is
// not taken apart. The apex is the zone that an answer which is not notOurs belongs to: what the name is below of, or
// the name itself.
func (z *zone) lookup(q *question) (f found) {
	f.zone = z
	bare := q.name[:len(q.name)-1]
	// A bare name that only has others below it is not ours: with an alias api.example.org, example.org stays what it is.
	if e := z.find(bare); e.data() {
		f.is, f.entry = known, e
		return f
	}
	there := false
	for _, suffix := range z.suffixes {
		at, _, ok := q.below(suffix)
		if !ok {
			continue
		}
		if f.is == notOurs {
			f.is, f.apex = unknown, at
		}
		if at == 0 {
			there = true
			continue
		}
		e := z.find(q.name[:at])
		if e.data() {
			f.is, f.entry, f.apex = known, e, at
			return f
		}
		there = there || e != nil
	}
	switch {
	case f.is == notOurs:
		z.lookupReverse(q, &f)
	case there:
		f.is = known
	}
	return f
}

// lookupReverse finds a PTR name. Addresses of the network's subnet are ours, whether there is an endpoint or not.
func (z *zone) lookupReverse(q *question, f *found) {
	a, ok := q.reverse()
	if !ok {
		return
	}
	if ptr := z.reverse[addrShard(a)][a]; ptr != nil {
		f.is, f.ptr = known, ptr
		return
	}
	if len(z.network.Subnets) > 0 && z.network.Subnet().Contains(a) {
		f.is = unknown
	}
}

// lookupAll finds a query's name as seen on the host's listener: below the domain, with a network's name. A name that
// can be cut in several ways has the longest service name, as in a network itself.
func (v *View) lookupAll(q *question) (f found) {
	at, labels, ok := q.below(v.domain)
	if !ok {
		return v.reverseAll(q)
	}
	f.is, f.apex = unknown, at
	if at == 0 {
		f.is = known
		return f
	}
	there := v.above[string(q.name[:at])]
	for i := labels - 1; i >= 0; i-- {
		off := int(q.offsets[i])
		z := v.byWire[string(q.name[off:at])]
		if z == nil {
			continue
		}
		if f.zone == nil {
			f.zone, f.apex = z, off
		}
		if off == 0 {
			there = true
			continue
		}
		e := z.find(q.name[:off])
		if e.data() {
			return found{is: known, entry: e, apex: off, zone: z}
		}
		there = there || e != nil
	}
	if there {
		f.is = known
	}
	return f
}

// reverseAll looks an address up in all networks. Networks may overlap: then all names are answered.
func (v *View) reverseAll(q *question) (f found) {
	a, ok := q.reverse()
	if !ok {
		return f
	}
	for _, z := range v.zones {
		if ptr := z.reverse[addrShard(a)][a]; ptr != nil {
			f.is, f.ptr = known, append(f.ptr[:len(f.ptr):len(f.ptr)], ptr...)
			f.zone = z
		} else if f.is == notOurs && z.network.Subnet().Contains(a) {
			f.is = unknown
		}
	}
	return f
}
