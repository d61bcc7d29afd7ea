package ipam

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
)

// Run keeps the store up to date until ctx ends, then returns nil: it writes what Allocate and Release decided, frees
// addresses after their quarantine, and keeps the number of spares at its target. While the store is away it tries
// again after 100 ms up to 10 s.
func (p *Pool) Run(ctx context.Context) error {
	var delay time.Duration
	for {
		err := p.maintain(ctx)
		wait := p.nextWake()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if delay == 0 {
				p.cfg.Log.Warn("leases are not up to date, trying again", "network", p.cfg.Network.Name, "err", err)
			}
			delay = min(max(2*delay, firstBackoff), maxBackoff)
			wait = delay/2 + rand.N(delay/2+1)
		default:
			delay = 0
		}
		timer := time.NewTimer(wait)
		kick := p.kick
		if err != nil {
			kick = nil // attaches must not turn a backoff into a hot loop
		}
		select {
		case <-ctx.Done():
		case <-kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// maintain does everything that is due.
func (p *Pool) maintain(ctx context.Context) error {
	if err := p.settle(ctx); err != nil {
		return err
	}
	for {
		more, err := p.adjust(ctx)
		if err != nil || !more {
			return err
		}
	}
}

// settle brings the store to what was decided here.
func (p *Pool) settle(ctx context.Context) error {
	p.mu.Lock()
	now := p.cfg.Now()
	look := p.viewed.IsZero() && len(p.held) > 0
	due := false
	for _, h := range p.held {
		if h.state == quarantine && !now.Before(h.until) {
			h.touch(returning, h.endpoint)
		}
		due = due || h.state == returning || h.dirty && !h.lost
		look = look || !h.verified
	}
	look = look || len(p.held) > 0 && now.Sub(p.viewed) >= recheck
	p.mu.Unlock()
	if !look && !due {
		return nil
	}
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()
	if look {
		if err := p.refresh(ctx); err != nil {
			return err
		}
	}
	if err := p.reassert(ctx); err != nil {
		return err
	}
	if err := p.putAll(ctx, func(h *held) bool { return h.dirty && !h.lost && h.state != returning }); err != nil {
		return err
	}
	return p.dropReturning(ctx)
}

// spares counts this node's spares, and says how many it should have: none while it has nothing else here, so that a
// node that left a network leaves nothing behind. p.mu is held.
func (p *Pool) spares() (have, target int) {
	active := false
	for _, h := range p.held {
		switch h.state {
		case spare:
			have++
		case used, quarantine:
			active = true
		}
	}
	if active {
		u := p.usage()
		target = SpareTarget(allocRange(p.subnet, p.cfg.Network.IPRange), u.Usable, u.Free(), p.cfg.Nodes())
	}
	return have, target
}

// adjust goes one step towards the right number of spares.
func (p *Pool) adjust(ctx context.Context) (more bool, err error) {
	p.mu.Lock()
	have, target := p.spares()
	surplus := max(have-target, 0)
	for _, h := range p.sorted(func(h *held) bool { return h.state == spare }) {
		if surplus > 0 {
			surplus--
			h.touch(returning, "")
		}
	}
	refill := have < target && !p.cfg.Now().Before(p.hold)
	p.mu.Unlock()
	if have == target || have < target && !refill {
		return false, nil
	}
	if err := p.lock(ctx); err != nil {
		return false, err
	}
	defer p.unlock()
	if have > target {
		return false, p.dropReturning(ctx)
	}
	if err := p.fresh(ctx, viewAge); err != nil {
		return false, err
	}
	p.mu.Lock()
	have, target = p.spares() // by the fresh view
	p.mu.Unlock()
	if have >= target {
		return have > target, nil
	}
	if _, err = p.createNext(ctx, spare, ""); errors.Is(err, errNone) || errors.Is(err, errWiped) {
		return false, nil
	}
	return err == nil, err
}

// GiveBack returns all unused spares at once, because another node has found nothing free, and fetches no new ones
// for a while. A spare whose return did not succeed is never used again, and Run tries on.
func (p *Pool) GiveBack(ctx context.Context) error {
	p.mu.Lock()
	p.hold = p.cfg.Now().Add(refillHold)
	for _, h := range p.held {
		if h.state == spare {
			h.touch(returning, "")
		}
	}
	p.mu.Unlock()
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()
	defer p.Kick()
	return p.dropReturning(ctx)
}

// Reassert looks at the store at once and creates own leases that it lost. Call it when Consul was wiped or restored;
// nothing new is allocated before it is done, whether it is called or not.
func (p *Pool) Reassert(ctx context.Context) error {
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()
	if err := p.refresh(ctx); err != nil {
		return err
	}
	return p.reassert(ctx)
}

// nextWake is how long nothing is due.
func (p *Pool) nextWake() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	wait := recheck + rand.N(recheck/4)
	for _, h := range p.held {
		if h.state == quarantine {
			wait = min(wait, h.until.Sub(now))
		}
	}
	for _, until := range []time.Time{p.hold, p.wiped.Add(wipeWait)} {
		if d := until.Sub(now); d > 0 {
			wait = min(wait, d)
		}
	}
	return max(wait, 0)
}
