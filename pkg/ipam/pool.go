package ipam

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/pkg/overlay"
)

const (
	// DefaultQuarantine is how long a released address rests: longer than what remembers it, such as neighbour
	// entries, cached names and connections that are being retried.
	DefaultQuarantine = 60 * time.Second
	// RecallWait is how long an attach waits for other nodes' spares.
	RecallWait = 3 * time.Second
	// viewAge is how old the view of other nodes' leases may be when a serial start is chosen. It only orders and
	// saves attempts: the store decides who gets an address.
	viewAge = 250 * time.Millisecond
	// nowAge is how old the view may be when it is said that nothing is free: many may be waiting to hear that.
	nowAge = 20 * time.Millisecond
	// slowAnswer is how long a failure may take before it is taken to hold as long for those who queue behind it:
	// a store that is silent would else be waited for by each of them in turn.
	slowAnswer = time.Second
	// refillHold keeps a node from fetching at once what it was asked to give back.
	refillHold = 10 * time.Second
	// ghostTime is how long addresses of others that vanished together with ours stay taken: their owners create
	// them again.
	ghostTime = time.Minute
	// wipeWait is how long nothing new is allocated after own leases vanished, so that the others can put theirs back.
	wipeWait = 2 * time.Second
	// recheck is how often a node that holds spares looks whether it still may.
	recheck = 2 * time.Minute
)

// PoolConfig describes a Pool. Network, Node and Store are required.
type PoolConfig struct {
	Network overlay.Network
	Node    string
	Store   Store
	// Quarantine rests a released address, on this host's monotonic clock; zero means DefaultQuarantine.
	Quarantine time.Duration
	// Nodes says how many nodes are on the network; nil means one. It must return quickly.
	Nodes func() int
	// Recall asks the other nodes for their spares; nil: nobody is asked.
	Recall func(ctx context.Context) error
	// InUse reports addresses that are in use by other evidence than a lease (endpoint records); nil: none. It must
	// return quickly.
	InUse func(netip.Addr) bool
	// Save makes what Export returns durable before a lease is given away, so that no restart believes it is still here;
	// nil: nothing is kept. It must not call the pool but for Export.
	Save func() error
	// Changed is called after what Export returns has changed, often in quick succession; it must not block and not
	// call the pool. May be nil.
	Changed func()
	// Initial is what an earlier process exported; its quarantines start over.
	Initial PoolState
	// Now is the clock, time.Now when nil; only differences are used.
	Now func() time.Time
	// Log may be nil: silence.
	Log *slog.Logger
}

// state of a lease held by this node, as known here; the store may lag behind.
type state int

const (
	used       state = iota
	spare            // for the next Allocate
	quarantine       // until held.until
	returning        // to be deleted from the store; never handed out again, since the deletion may have happened
)

// held is one lease of this node.
type held struct {
	addr     netip.Addr
	state    state
	endpoint overlay.EndpointID
	until    time.Time // end of quarantine
	version  uint64
	created  uint64
	stored   bool // the store has it, as far as is known
	verified bool // the store confirmed it since this process started
	dirty    bool // the store has another state or endpoint
	lost     bool // another node holds the lease of an address that is in use here
	gen      int  // counts changes, so that a slow write does not hide a newer one
}

// Pool is this node's share of one network's addresses. It is safe for concurrent use.
//
// Two locks: store serialises everything that talks to the store, so that a list is never compared with leases that
// changed meanwhile; mu guards the fields and is never held during I/O. An attach with a spare needs only mu.
type Pool struct {
	cfg    PoolConfig
	subnet netip.Prefix
	kick   chan struct{}
	store  chan struct{}

	mu       sync.Mutex
	held     map[netip.Addr]*held
	others   map[netip.Addr]overlay.Lease // leases of other nodes, at viewed
	viewed   time.Time                    // zero: never
	unknown  bool                         // some of others was only seen to be taken
	ghosts   map[netip.Addr]time.Time     // taken until then, whatever the store says
	adopted  bool
	last     netip.Addr // the newest lease this node created
	lastMade uint64     // its Created
	hold     time.Time  // no refill before
	wiped    time.Time  // when own leases vanished from the store
	recalled time.Time
	slow     time.Time // when slowErr ended a long wait for the store
	slowErr  error
}

// NewPool makes the pool; it panics when a required field is missing. Call Adopt before anything else, then Run.
func NewPool(cfg PoolConfig) *Pool {
	if cfg.Store == nil || cfg.Node == "" || !cfg.Network.Subnet().IsValid() {
		panic("ipam: pool without store, node or subnet")
	}
	if cfg.Quarantine == 0 {
		cfg.Quarantine = DefaultQuarantine
	}
	if cfg.Nodes == nil {
		cfg.Nodes = func() int { return 1 }
	}
	if cfg.InUse == nil {
		cfg.InUse = func(netip.Addr) bool { return false }
	}
	if cfg.Save == nil {
		cfg.Save = func() error { return nil }
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Pool{
		cfg: cfg, subnet: cfg.Network.Subnet(),
		kick: make(chan struct{}, 1), store: make(chan struct{}, 1),
		held: map[netip.Addr]*held{}, others: map[netip.Addr]overlay.Lease{}, ghosts: map[netip.Addr]time.Time{},
	}
	p.load(cfg.Initial)
	return p
}

// lock takes the store lock, or gives up with ctx.
func (p *Pool) lock(ctx context.Context) error {
	select {
	case p.store <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *Pool) unlock() { <-p.store }

// Kick makes Run look at once.
func (p *Pool) Kick() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// changed tells whoever persists, and Run. p.mu must not be held.
func (p *Pool) changed() {
	p.cfg.Changed()
	p.Kick()
}

// touch marks h as differing from the store. p.mu is held.
func (h *held) touch(s state, e overlay.EndpointID) {
	h.state, h.endpoint, h.dirty = s, e, true
	h.gen++
}

// lease is h as the store should have it.
func (p *Pool) lease(h *held) overlay.Lease {
	l := overlay.Lease{Address: h.addr, Node: p.cfg.Node, NetworkID: p.cfg.Network.ID, Endpoint: h.endpoint, Version: h.version, Created: h.created}
	switch h.state {
	case used:
		l.State = overlay.LeaseUsed
	case spare:
		l.State = overlay.LeaseSpare
	default:
		l.State = overlay.LeaseQuarantine
	}
	return l
}

// sorted returns the held leases that f accepts, oldest first. p.mu is held.
func (p *Pool) sorted(f func(*held) bool) []*held {
	var out []*held
	for _, h := range p.held {
		if f(h) {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b *held) int {
		return cmp.Or(cmp.Compare(a.created, b.created), a.addr.Compare(b.addr))
	})
	return out
}

// taken reports what Next must pass over. p.mu is held.
func (p *Pool) taken(a netip.Addr) bool {
	if _, ok := p.held[a]; ok {
		return true
	}
	if _, ok := p.others[a]; ok {
		return true
	}
	if until, ok := p.ghosts[a]; ok && p.cfg.Now().Before(until) {
		return true
	}
	return p.cfg.InUse(a)
}

// newest is the address with the highest Created index that is known, where serial allocation goes on. p.mu is held.
func (p *Pool) newest() netip.Addr {
	addr, made := p.last, p.lastMade
	for a, l := range p.others {
		if l.Created > made {
			addr, made = a, l.Created
		}
	}
	for a, h := range p.held {
		if h.created > made {
			addr, made = a, h.created
		}
	}
	return addr
}

// Usage counts the network's addresses as this node knows them.
func (p *Pool) Usage() Usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.usage()
}

func (p *Pool) usage() Usage {
	n := p.cfg.Network
	u := Usage{Usable: Usable(p.subnet, n.IPRange, n.Gateway), SpareBy: map[string]int{}}
	r := allocRange(p.subnet, n.IPRange)
	count := func(l overlay.Lease) {
		switch {
		case !r.Contains(l.Address) || !Assignable(p.subnet, n.Gateway, l.Address):
		case l.State == overlay.LeaseSpare:
			u.Spare++
			u.SpareBy[l.Node]++
		case l.State == overlay.LeaseQuarantine:
			u.Quarantined++
		case l.State == overlay.LeaseReserved:
			u.Reserved++
		default:
			u.Used++
		}
	}
	for _, l := range p.others {
		count(l)
	}
	for _, h := range p.held {
		if !h.lost { // a lost one is counted as its holder's
			count(p.lease(h))
		}
	}
	return u
}

// Idle reports whether this node holds no lease of the network, so that the pool may be dropped.
func (p *Pool) Idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.held) == 0
}
