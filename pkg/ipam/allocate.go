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

const (
	// doubtWait bounds the wait for a silent store before an unconfirmed spare is used anyway.
	doubtWait = 500 * time.Millisecond
	// recallPause is between two looks for addresses that others gave back; recallEvery between two requests.
	recallPause = 50 * time.Millisecond
	recallEvery = time.Second
)

// Allocate gives endpoint an address: want, or any when want is the zero Addr. An endpoint that has one gets the same
// again. A spare is given at once, also when the store is away; else a lease is created, for which, when nothing is
// free, other nodes' spares are recalled for up to RecallWait.
//
// Errors: *ExhaustedError, *TakenError (os.ErrExist), ErrUnusable, or the store's.
func (p *Pool) Allocate(ctx context.Context, endpoint overlay.EndpointID, want netip.Addr) (netip.Addr, error) {
	if want.IsValid() {
		if err := p.checkWanted(want); err != nil {
			return netip.Addr{}, err
		}
	}
	deadline := p.cfg.Now().Add(RecallWait)
	for {
		a, err := p.attempt(ctx, endpoint, want)
		if err == nil || !p.worthWaiting(err) || !p.cfg.Now().Before(deadline) {
			return a, p.explain(err)
		}
		if !errors.Is(err, errWiped) {
			p.recall(ctx)
		}
		select {
		case <-ctx.Done():
			return netip.Addr{}, fmt.Errorf("%w: %w", context.Cause(ctx), p.explain(err))
		case <-time.After(recallPause):
		}
	}
}

// attempt tries without the store, then with it.
func (p *Pool) attempt(ctx context.Context, endpoint overlay.EndpointID, want netip.Addr) (netip.Addr, error) {
	if a, done, err := p.local(endpoint, want, false); done {
		return a, err
	}
	if err := p.lock(ctx); err != nil {
		return netip.Addr{}, fmt.Errorf("wait for the lease store: %w", err)
	}
	defer p.unlock()
	if a, done, err := p.local(endpoint, want, false); done { // somebody else's work may have helped
		return a, err
	}
	if err := p.freshEnough(ctx, want); err != nil {
		if a, done, err := p.local(endpoint, want, true); done {
			return a, err
		}
		return netip.Addr{}, fmt.Errorf("no spare address is left and no new one can be had: %w", err)
	}
	if a, done, err := p.local(endpoint, want, false); done { // a spare is confirmed now
		return a, err
	}
	if want.IsValid() {
		return p.createWanted(ctx, endpoint, want)
	}
	a, err := p.createNext(ctx, used, endpoint)
	if errors.Is(err, errNone) { // by a view that may be old
		if err := p.fresh(ctx, nowAge); err != nil {
			return netip.Addr{}, err
		}
		a, err = p.createNext(ctx, used, endpoint)
	}
	return a, err
}

// local decides what needs no store: done is false when it does. Spares that the store did not confirm since this
// process started are given only when doubtful is set.
func (p *Pool) local(endpoint overlay.EndpointID, want netip.Addr, doubtful bool) (a netip.Addr, done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.held {
		if h.state != used || h.endpoint != endpoint {
			continue
		}
		if want.IsValid() && want != h.addr {
			return netip.Addr{}, true, fmt.Errorf("give endpoint %s address %s on network %s: it has %s: %w", endpoint, want, p.cfg.Network.Name, h.addr, os.ErrExist)
		}
		return h.addr, true, nil
	}
	h := p.held[want]
	if !want.IsValid() {
		for _, s := range p.sorted(func(h *held) bool { return h.state == spare && (doubtful || h.stored && h.verified) }) {
			h = s
			break
		}
	}
	switch {
	case h == nil || h.state == returning:
		return netip.Addr{}, false, nil
	case h.state == spare && (doubtful || h.stored && h.verified), h.state == quarantine && h.endpoint == endpoint && h.verified && !h.lost:
		// Who comes back with an address of its own need not wait for itself: nobody can mistake it for another.
		h.touch(used, endpoint)
		defer p.changed()
		return h.addr, true, nil
	case h.state == spare:
		return netip.Addr{}, false, nil
	}
	taken := &TakenError{Network: p.cfg.Network.Name, Lease: p.lease(h)}
	if h.state == quarantine {
		taken.Wait = h.until.Sub(p.cfg.Now())
	}
	return netip.Addr{}, true, taken
}

// freshEnough is fresh, bounded when there is a spare to fall back on.
func (p *Pool) freshEnough(ctx context.Context, want netip.Addr) error {
	p.mu.Lock()
	fallback := false
	for a, h := range p.held {
		fallback = fallback || h.state == spare && (!want.IsValid() || a == want)
	}
	p.mu.Unlock()
	if fallback {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, doubtWait)
		defer cancel()
	}
	return p.fresh(ctx, viewAge)
}

// createWanted creates the lease of one address, or says who has it.
func (p *Pool) createWanted(ctx context.Context, endpoint overlay.EndpointID, want netip.Addr) (netip.Addr, error) {
	p.mu.Lock()
	h := p.held[want]
	_, leased := p.others[want]
	taken, wiped := p.taken(want) && h == nil && !leased, p.justWiped()
	p.mu.Unlock()
	if wiped {
		return netip.Addr{}, errWiped
	}
	if taken {
		return netip.Addr{}, &TakenError{Network: p.cfg.Network.Name, Lease: overlay.Lease{Address: want}}
	}
	if h != nil { // on its way back to the store
		if err := p.drop(ctx, h); err != nil {
			return netip.Addr{}, err
		}
	}
	err := p.create(ctx, want, used, endpoint)
	if !errors.Is(err, os.ErrExist) {
		return want, err
	}
	if err := p.refresh(ctx); err != nil {
		return netip.Addr{}, err
	}
	p.mu.Lock()
	l, ok := p.others[want]
	p.mu.Unlock()
	if !ok { // an own lease that was forgotten, or gone again
		l = overlay.Lease{Address: want, Node: p.cfg.Node, State: overlay.LeaseQuarantine}
	}
	return netip.Addr{}, &TakenError{Network: p.cfg.Network.Name, Lease: l}
}

func (p *Pool) checkWanted(want netip.Addr) error {
	n := p.cfg.Network
	fail := func(why string) error {
		return fmt.Errorf("address %s on network %s: %w: %s", want, n.Name, ErrUnusable, why)
	}
	switch {
	case !p.subnet.Contains(want):
		return fail("it is outside subnet " + p.subnet.String())
	case want == n.Gateway:
		return fail("it is the gateway")
	case !Assignable(p.subnet, n.Gateway, want):
		return fail("it is the network or broadcast address of " + p.subnet.String())
	}
	return nil
}

// worthWaiting reports whether another node's spare could end this failure, or an own lease on its way back.
func (p *Pool) worthWaiting(err error) bool {
	var taken *TakenError
	if errors.As(err, &taken) {
		return taken.Lease.State == overlay.LeaseSpare && taken.Lease.Node != p.cfg.Node
	}
	if !errors.Is(err, errNone) {
		return errors.Is(err, errWiped)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.others {
		if l.State == overlay.LeaseSpare {
			return true
		}
	}
	for _, h := range p.held {
		if h.state == returning || h.state == spare {
			return true
		}
	}
	// The view may be newer than the failure.
	_, ok := Next(p.subnet, p.cfg.Network.IPRange, p.cfg.Network.Gateway, p.taken, p.newest())
	return ok
}

// recall asks the others, at most once a second.
func (p *Pool) recall(ctx context.Context) {
	p.mu.Lock()
	now := p.cfg.Now()
	due := p.cfg.Recall != nil && (p.recalled.IsZero() || now.Sub(p.recalled) >= recallEvery)
	if due {
		p.recalled = now
	}
	p.mu.Unlock()
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, recallEvery)
	defer cancel()
	if err := p.cfg.Recall(ctx); err != nil {
		p.cfg.Log.Warn("recall of spare addresses was not sent", "network", p.cfg.Network.Name, "err", err)
	}
}

// explain gives errNone its numbers.
func (p *Pool) explain(err error) error {
	if !errors.Is(err, errNone) {
		return err
	}
	return &ExhaustedError{Network: p.cfg.Network.Name, Subnet: p.subnet, Range: p.cfg.Network.IPRange, Usage: p.Usage()}
}

// Release puts an endpoint's address into quarantine; the store learns of it from Run. os.ErrNotExist when that endpoint
// does not have it.
func (p *Pool) Release(endpoint overlay.EndpointID, a netip.Addr) error {
	p.mu.Lock()
	h := p.held[a]
	if h == nil || h.state != used || h.endpoint != endpoint {
		p.mu.Unlock()
		return fmt.Errorf("release address %s of network %s: %w", a, p.cfg.Network.Name, os.ErrNotExist)
	}
	if h.lost {
		delete(p.held, a) // never ours, it turned out
	} else {
		h.touch(quarantine, h.endpoint)
		h.until = p.cfg.Now().Add(p.cfg.Quarantine)
	}
	p.mu.Unlock()
	p.changed()
	return nil
}
