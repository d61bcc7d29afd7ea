package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"weft/pkg/overlay"
)

// Everything in this file that takes a context is called with the store lock held and p.mu not held.

// errNone says that the range has no free address.
var errNone = errors.New("no free address")

// errWiped says that the store was wiped a moment ago.
var errWiped = errors.New("the lease store was wiped, waiting for other nodes to put their leases back")

// refresh reads all leases and settles the difference to what is known here.
func (p *Pool) refresh(ctx context.Context) error {
	start := p.cfg.Now()
	leases, err := p.cfg.Store.List(ctx, p.cfg.Network.Name)
	if err != nil {
		err = fmt.Errorf("list leases of network %s: %w", p.cfg.Network.Name, err)
		if end := p.cfg.Now(); end.Sub(start) > slowAnswer {
			p.mu.Lock()
			p.slow, p.slowErr = end, err
			p.mu.Unlock()
		}
		return err
	}
	p.mu.Lock()
	p.merge(leases)
	p.mu.Unlock()
	p.cfg.Changed()
	return nil
}

// merge believes the store about others, and about whether it has our leases; what they are for is known here.
// p.mu is held.
func (p *Pool) merge(leases []overlay.Lease) {
	now := p.cfg.Now()
	others := make(map[netip.Addr]overlay.Lease, len(leases))
	mine := map[netip.Addr]bool{}
	for _, l := range leases {
		if l.NetworkID != "" && l.NetworkID != p.cfg.Network.ID {
			continue // of an earlier network of this name: Create writes over it
		}
		if l.Node == p.cfg.Node && l.State != overlay.LeaseReserved && (p.adopted || p.held[l.Address] != nil) {
			p.mergeOwn(l)
			mine[l.Address] = true
			continue
		}
		others[l.Address] = l
		p.mergeOther(l)
	}
	vanished := 0
	for a, h := range p.held {
		if _, ok := others[a]; ok || mine[a] {
			continue
		}
		if h.state == returning {
			delete(p.held, a) // gone is what was wanted
			continue
		}
		if h.stored {
			vanished++
		}
		h.stored, h.version, h.lost, h.dirty, h.verified = false, 0, false, true, true
	}
	for a, until := range p.ghosts {
		if now.After(until) {
			delete(p.ghosts, a)
		}
	}
	if vanished > 0 {
		p.cfg.Log.Warn("own leases vanished from the store, creating them again", "network", p.cfg.Network.Name, "leases", vanished)
		p.wiped = now
	}
	if vanished > 0 || len(leases) == 0 { // it looks like a wipe: the others will create theirs again as well
		for a := range p.others {
			if _, ok := others[a]; !ok {
				p.ghosts[a] = now.Add(ghostTime)
			}
		}
	}
	p.others, p.viewed, p.unknown = others, now, false
}

// mergeOwn settles one stored lease of this node. One that is not known here was left by an earlier process or by a
// create whose answer was lost: a spare is kept, an address that may have been in use rests first.
func (p *Pool) mergeOwn(l overlay.Lease) {
	h := p.held[l.Address]
	if h == nil {
		h = &held{addr: l.Address, endpoint: l.Endpoint, state: spare}
		if l.State != overlay.LeaseSpare {
			h.state, h.until = quarantine, p.cfg.Now().Add(p.cfg.Quarantine)
		}
		p.held[l.Address] = h
	}
	h.version, h.created, h.stored, h.verified, h.lost = l.Version, l.Created, true, true, false
	want := p.lease(h)
	h.dirty = want.State != l.State || want.Endpoint != l.Endpoint
}

// mergeOther drops what another node holds, unless it is in use here: that is never torn down, but reported.
func (p *Pool) mergeOther(l overlay.Lease) {
	h := p.held[l.Address]
	switch {
	case h == nil:
	case h.state != used:
		delete(p.held, l.Address)
	default:
		if !h.lost {
			p.cfg.Log.Error("address in use here is leased to another node", "network", p.cfg.Network.Name,
				"address", l.Address, "endpoint", h.endpoint, "node", l.Node)
		}
		h.lost, h.stored, h.version, h.dirty, h.verified = true, false, 0, false, true
	}
}

// fresh makes the view at most age old, with all own leases in the store: nothing new is allocated before.
func (p *Pool) fresh(ctx context.Context, age time.Duration) error {
	p.mu.Lock()
	old := p.viewed.IsZero() || p.cfg.Now().Sub(p.viewed) > age || age <= nowAge && p.unknown
	slowErr := p.slowErr
	if p.cfg.Now().Sub(p.slow) > slowAnswer {
		slowErr = nil
	}
	p.mu.Unlock()
	if old && slowErr != nil {
		return slowErr
	}
	if old {
		if err := p.refresh(ctx); err != nil {
			return err
		}
	}
	return p.reassert(ctx)
}

// reassert creates own leases that the store does not have.
func (p *Pool) reassert(ctx context.Context) error {
	return p.putAll(ctx, func(h *held) bool { return !h.stored && !h.lost && h.state != returning })
}

// putAll writes the held leases that f accepts, oldest first, and stops at the first failure.
func (p *Pool) putAll(ctx context.Context, f func(*held) bool) error {
	p.mu.Lock()
	todo := p.sorted(f)
	p.mu.Unlock()
	for _, h := range todo {
		if err := p.put(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// put brings one lease to the store.
func (p *Pool) put(ctx context.Context, h *held) error {
	for range 3 {
		p.mu.Lock()
		l, gen, stored := p.lease(h), h.gen, h.stored
		gone := p.held[h.addr] != h || h.lost || h.state == returning || (stored && !h.dirty)
		p.mu.Unlock()
		if gone {
			return nil
		}
		write := p.cfg.Store.Create
		if stored {
			write = p.cfg.Store.Update
		}
		got, err := write(ctx, p.cfg.Network.Name, l)
		switch {
		case err == nil:
			p.mu.Lock()
			h.version, h.created, h.stored, h.verified = got.Version, got.Created, true, true
			h.dirty = h.gen != gen
			p.mu.Unlock()
			p.cfg.Changed()
			return nil
		case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrExist), errors.Is(err, ErrConflict):
			if err := p.refresh(ctx); err != nil { // the store knows better
				return err
			}
		default:
			return fmt.Errorf("write lease %s of network %s: %w", l.Address, p.cfg.Network.Name, err)
		}
	}
	return fmt.Errorf("write lease %s of network %s: %w", h.addr, p.cfg.Network.Name, ErrConflict)
}

// drop deletes one lease that is returning.
func (p *Pool) drop(ctx context.Context, h *held) error {
	for range 3 {
		p.mu.Lock()
		l := p.lease(h)
		gone := p.held[h.addr] != h || h.state != returning
		if !gone && !h.stored { // nothing to delete that is known of
			delete(p.held, h.addr)
			gone = true
		}
		p.mu.Unlock()
		if gone {
			return nil
		}
		err := p.cfg.Store.Delete(ctx, p.cfg.Network.Name, l)
		switch {
		case err == nil, errors.Is(err, os.ErrNotExist):
			p.mu.Lock()
			delete(p.held, h.addr)
			p.mu.Unlock()
			p.cfg.Changed()
			return nil
		case errors.Is(err, ErrConflict):
			if err := p.refresh(ctx); err != nil {
				return err
			}
		default:
			return fmt.Errorf("delete lease %s of network %s: %w", h.addr, p.cfg.Network.Name, err)
		}
	}
	return fmt.Errorf("delete lease %s of network %s: %w", h.addr, p.cfg.Network.Name, ErrConflict)
}

// dropReturning deletes every lease that is returning.
func (p *Pool) dropReturning(ctx context.Context) error {
	p.mu.Lock()
	todo := p.sorted(func(h *held) bool { return h.state == returning })
	p.mu.Unlock()
	if len(todo) == 0 {
		return nil
	}
	if err := p.cfg.Save(); err != nil {
		return fmt.Errorf("give leases of network %s back: %w", p.cfg.Network.Name, err)
	}
	for _, h := range todo {
		if err := p.drop(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// createNext creates the serially next lease; errNone when the view shows no free address.
func (p *Pool) createNext(ctx context.Context, s state, e overlay.EndpointID) (netip.Addr, error) {
	n := p.cfg.Network
	p.mu.Lock()
	after, wiped := p.newest(), p.justWiped()
	p.mu.Unlock()
	if wiped {
		return netip.Addr{}, errWiped
	}
	for {
		p.mu.Lock()
		a, ok := Next(p.subnet, n.IPRange, n.Gateway, p.taken, after)
		p.mu.Unlock()
		if !ok {
			return netip.Addr{}, errNone
		}
		err := p.create(ctx, a, s, e)
		if !errors.Is(err, os.ErrExist) {
			return a, err
		}
		after = a // lost the race for this one
	}
}

// justWiped reports whether it is too early for new leases. p.mu is held.
func (p *Pool) justWiped() bool {
	return !p.wiped.IsZero() && p.cfg.Now().Sub(p.wiped) < wipeWait
}

// create stores one new lease; on os.ErrExist the address is noted as taken. When the outcome is not known the next
// refresh finds what there is to find.
func (p *Pool) create(ctx context.Context, a netip.Addr, s state, e overlay.EndpointID) error {
	h := &held{addr: a, state: s, endpoint: e, stored: true, verified: true}
	p.mu.Lock()
	l := p.lease(h)
	p.mu.Unlock()
	got, err := p.cfg.Store.Create(ctx, p.cfg.Network.Name, l)
	if err != nil && !errors.Is(err, os.ErrExist) {
		p.mu.Lock()
		p.viewed = p.viewed.Add(-recheck)
		p.mu.Unlock()
		return fmt.Errorf("create lease %s of network %s: %w", a, p.cfg.Network.Name, err)
	}
	p.mu.Lock()
	if err != nil {
		p.others[a] = overlay.Lease{Address: a, State: overlay.LeaseUsed} // whose it is, the next list says
		p.unknown = true
	} else {
		h.version, h.created = got.Version, got.Created
		p.held[a], p.last, p.lastMade = h, a, got.Created
	}
	p.mu.Unlock()
	if err == nil {
		p.changed()
	}
	return err
}
