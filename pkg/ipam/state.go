package ipam

import (
	"cmp"
	"net/netip"
	"slices"

	"weft/pkg/overlay"
)

// PoolState is what a pool knows of its own leases, to be kept on disk (as JSON) so that a restart while the store is
// away still has its spares. The zero value knows nothing.
type PoolState struct {
	// NetworkID guards against a network that was made anew under the same name.
	NetworkID overlay.NetworkID `json:"networkId"`
	Leases    []SavedLease      `json:"leases"`
	// Last is the newest lease this node created, and its Created index: where serial allocation goes on.
	Last        netip.Addr `json:"last,omitzero"`
	LastCreated uint64     `json:"lastCreated,omitempty"`
}

// SavedLease is one lease of this node in a PoolState. A quarantine starts over when it is loaded.
type SavedLease struct {
	Address  netip.Addr         `json:"address"`
	Endpoint overlay.EndpointID `json:"endpoint,omitempty"`
	State    overlay.LeaseState `json:"state"`
	Version  uint64             `json:"version,omitempty"` // zero: not stored yet
	Created  uint64             `json:"created,omitempty"`
}

// Export returns the pool's state, ordered by address.
func (p *Pool) Export() PoolState {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := PoolState{NetworkID: p.cfg.Network.ID, Last: p.last, LastCreated: p.lastMade, Leases: []SavedLease{}}
	for _, h := range p.held {
		l := p.lease(h)
		s := SavedLease{Address: l.Address, Endpoint: l.Endpoint, State: l.State, Created: l.Created}
		if h.stored {
			s.Version = l.Version
		}
		out.Leases = append(out.Leases, s)
	}
	slices.SortFunc(out.Leases, func(a, b SavedLease) int { return a.Address.Compare(b.Address) })
	return out
}

// load takes over what an earlier process exported.
func (p *Pool) load(s PoolState) {
	if s.NetworkID != p.cfg.Network.ID {
		return
	}
	p.last, p.lastMade = s.Last, s.LastCreated
	for _, l := range s.Leases {
		if !Assignable(p.subnet, p.cfg.Network.Gateway, l.Address) {
			continue
		}
		h := &held{addr: l.Address, endpoint: l.Endpoint, version: l.Version, created: l.Created, stored: l.Version > 0}
		h.dirty = !h.stored
		switch l.State {
		case overlay.LeaseUsed:
			h.state = used
		case overlay.LeaseSpare:
			h.state = spare
		default:
			h.state, h.until = quarantine, p.cfg.Now().Add(p.cfg.Quarantine)
		}
		p.held[l.Address] = h
	}
}

// Adopt tells which endpoints this node really has, with their addresses, before the first Allocate (an empty map
// says: none). Their leases are this node's, whatever the store says; leases that were in use for others go to
// quarantine. It needs no store; Run settles the difference.
func (p *Pool) Adopt(endpoints map[overlay.EndpointID]netip.Addr) {
	p.mu.Lock()
	owned := make(map[netip.Addr]overlay.EndpointID, len(endpoints))
	for id, a := range endpoints {
		owned[a] = id
	}
	for a, h := range p.held {
		if _, ok := owned[a]; !ok && h.state == used {
			h.touch(quarantine, h.endpoint)
			h.until = p.cfg.Now().Add(p.cfg.Quarantine)
		}
	}
	for a, id := range owned {
		h := p.held[a]
		if h == nil {
			h = &held{addr: a}
			p.held[a] = h
		}
		if h.state != used || h.endpoint != id || !h.stored {
			h.touch(used, id)
		}
		delete(p.others, a)
	}
	p.adopted = true
	p.viewed = p.viewed.Add(-recheck) // whatever was seen before was seen without this
	p.mu.Unlock()
	p.changed()
}

// Problems reports addresses that are in use here although another node holds their lease.
func (p *Pool) Problems() []overlay.Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []overlay.Problem
	for _, h := range p.sorted(func(h *held) bool { return h.lost }) {
		out = append(out, overlay.Problem{Subject: "endpoint " + string(h.endpoint), Message: "its address " + h.addr.String() +
			" on network " + p.cfg.Network.Name + " is leased to node " + cmp.Or(p.others[h.addr].Node, "?") + " as well: detach one of the two"})
	}
	return out
}
