package dns

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Clock is the forwarder's times, wall time; zero fields mean the usual ones.
type Clock struct {
	Resend time.Duration // a UDP question is repeated once after it; 800 ms
	Try    time.Duration // one server's; 2 s
	Total  time.Duration // one question's; 5 s
	Stale  time.Duration // until what is out of date is answered; 1.8 s
}

func (c Clock) withDefaults() Clock {
	for p, d := range map[*time.Duration]time.Duration{&c.Resend: 800 * time.Millisecond, &c.Try: 2 * time.Second,
		&c.Total: 5 * time.Second, &c.Stale: staleWait} {
		if *p == 0 {
			*p = d
		}
	}
	return c
}

// maxAsking bounds the questions that wait for upstreams at once, on all listeners together.
const maxAsking = 2048

// route is where a question goes.
type route struct {
	id      uint32 // in cache keys
	name    string // for logs and people: "upstreams", "consul", or a conditional zone
	servers func() []netip.AddrPort
	// follow names the network whose endpoints must be read first; then the rest is unset.
	follow string
}

// forwarder asks upstreams.
type forwarder struct {
	log      *slog.Logger
	clock    Clock
	cache    *cache
	upstream *route
	consul   *route // nil when Consul's names go to the upstreams
	suffix   []byte // of Consul's names
	asking   atomic.Int64

	mu      sync.Mutex
	flights map[string]*flight
	routes  map[string]*route // conditional ones, by name and servers
	peers   map[netip.AddrPort]*peer

	exchanges, failures, truncated, stale, prefetched, overloaded, loops, shared atomic.Uint64
}

// flight is one question under way; everybody who asks it meanwhile waits for it.
type flight struct {
	done  chan struct{}
	entry *cacheEntry // nil: nobody answered
}

func newForwarder(cfg Config) *forwarder {
	servers := cfg.Upstreams
	if servers == nil {
		servers = func() []netip.AddrPort { return nil }
	}
	f := &forwarder{log: cfg.Log, clock: cfg.Clock.withDefaults(), cache: newCache(CacheBytes), suffix: mustWire(ConsulDomain),
		flights: map[string]*flight{}, routes: map[string]*route{}, peers: map[netip.AddrPort]*peer{}}
	f.upstream = &route{id: 1, name: "upstreams", servers: servers}
	if cfg.Consul.IsValid() {
		f.consul = &route{id: 2, name: "consul", servers: func() []netip.AddrPort { return []netip.AddrPort{cfg.Consul} }}
	}
	return f
}

// route chooses who is asked: the longest conditional zone of the network, Consul, or the upstreams.
func (f *forwarder) route(z *zone, q *question) *route {
	if z != nil {
		for i := range z.forward {
			if c := &z.forward[i]; len(c.suffix) > 1 {
				if _, _, ok := q.below(c.suffix); ok {
					return f.conditional(c)
				}
			}
		}
	}
	if f.consul != nil {
		if _, _, ok := q.below(f.suffix); ok {
			return f.consul
		}
	}
	return f.upstream
}

func (f *forwarder) conditional(c *conditional) *route {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, s := range c.servers {
		b.WriteString(s.String() + " ")
	}
	key := b.String()
	r := f.routes[key]
	if r == nil {
		servers := c.servers
		r = &route{id: uint32(len(f.routes) + 16), name: "zone " + text(c.suffix), servers: func() []netip.AddrPort { return servers }}
		f.routes[key] = r
	}
	return r
}

// cached answers from the cache: what is fresh, and what is out of date while nobody else answers. With ask it wants the
// question asked again meanwhile.
func (f *forwarder) cached(b, req []byte, q *question, r *route, udp bool) (out []byte, ok, again bool) {
	var buf [keyLen]byte
	e := f.cache.get(q.key(buf[:], r))
	if e == nil {
		return nil, false, false
	}
	now := f.cache.now()
	age := now - e.stored
	left := e.expires() - now
	if left <= 0 {
		if e.recheck.Load() <= now {
			return nil, false, false
		}
		f.stale.Add(1)
		return e.write(b, req, q, age, true, udp), true, false
	}
	if e.ttl >= prefetchMin && left < int64(e.ttl)*int64(time.Second)/prefetchShare && e.hits.Load() >= 2 && e.fetching.CompareAndSwap(false, true) {
		f.prefetched.Add(1)
		again = true
	}
	if e.hits.Load() < 2 {
		e.hits.Add(1)
	}
	return e.write(b, req, q, age, false, udp), true, again
}

// admit reserves a place among the questions under way; who got one calls done.
func (f *forwarder) admit() bool {
	if f.asking.Add(1) > maxAsking {
		f.asking.Add(-1)
		f.overloaded.Add(1)
		return false
	}
	return true
}

func (f *forwarder) done() { f.asking.Add(-1) }

// overload answers a question that is not asked because too many are.
func (f *forwarder) overload(req []byte, udp bool) []byte {
	q := new(question)
	if !q.parse(req) {
		return nil
	}
	return refusal(nil, req, q, flagRA, rcodeServFail)
}

// resolve asks upstreams, or waits for somebody who does, and calls write once with the answer. It returns when the
// answer is written and what it started has ended.
func (f *forwarder) resolve(ctx context.Context, r *route, req []byte, from netip.Addr, udp bool, write func([]byte)) {
	q := new(question)
	if !q.parse(req) {
		return
	}
	key := string(q.key(make([]byte, 0, keyLen), r))
	old := f.cache.get([]byte(key))
	if old != nil && f.cache.now()-old.stored > int64(staleFor) {
		old = nil
	}
	if old != nil && be.Uint16(old.msg[2:])&0xf == rcodeServFail {
		old = nil // a failure that is out of date helps nobody
	}
	var once sync.Once
	answer := func(e *cacheEntry) {
		once.Do(func() {
			age := int64(0)
			out := []byte(nil)
			switch {
			case e != nil:
				age = f.cache.now() - e.stored
				out = e.write(nil, req, q, age, false, udp)
			case old != nil:
				f.stale.Add(1)
				out = old.write(nil, req, q, 0, true, udp)
			default:
				out = refusal(nil, req, q, flagRA, rcodeServFail)
			}
			write(out)
		})
	}
	if old != nil {
		t := time.AfterFunc(f.clock.Stale, func() { answer(nil) })
		defer t.Stop()
	}
	fl, leader := f.join(key)
	if !leader {
		if f.isLoop(r, from) {
			write(refusal(nil, req, q, flagRA, rcodeRefused))
			return
		}
		f.shared.Add(1)
		select {
		case <-fl.done:
			answer(fl.entry)
		case <-ctx.Done():
		}
		return
	}
	fl.entry = f.fetch(ctx, r, q, key, old)
	f.mu.Lock()
	delete(f.flights, key)
	f.mu.Unlock()
	close(fl.done)
	if ctx.Err() == nil {
		answer(fl.entry)
	}
}

func (f *forwarder) join(key string) (fl *flight, leader bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl = f.flights[key]; fl != nil {
		return fl, false
	}
	fl = &flight{done: make(chan struct{})}
	f.flights[key] = fl
	return fl, true
}

// isLoop tells that an upstream asks us what we are asking it: then the question would wait for itself.
func (f *forwarder) isLoop(r *route, from netip.Addr) bool {
	for _, s := range r.servers() {
		if s.Addr() == from {
			if f.loops.Add(1) == 1 {
				f.log.Warn("a name server sends us what we ask it: take this host out of its upstreams, or it out of dns.upstreams", "server", s.String())
			}
			return true
		}
	}
	return false
}

// fetch asks the upstreams and keeps what they say.
func (f *forwarder) fetch(ctx context.Context, r *route, q *question, key string, old *cacheEntry) *cacheEntry {
	ctx, cancel := context.WithTimeout(ctx, f.clock.Total)
	defer cancel()
	e := f.exchange(ctx, r, q)
	switch {
	case e == nil && old != nil:
		old.fetching.Store(false)
		if ctx.Err() == context.Canceled {
			return nil
		}
		old.recheck.Store(f.cache.now() + int64(staleRecheck))
		return nil
	case e == nil && ctx.Err() == nil || e == nil && ctx.Err() == context.DeadlineExceeded:
		e = &cacheEntry{msg: be.AppendUint16(make([]byte, 2, headerLen+len(q.name)+4), flagQR|rcodeServFail), question: headerLen + len(q.name) + 4, ttl: failureTTL}
		e.msg = append(e.msg, 0, 1, 0, 0, 0, 0, 0, 0)
		e.msg = be.AppendUint16(be.AppendUint16(append(e.msg, q.name...), q.qtype), classIN)
	case e == nil:
		return nil
	}
	e.stored = f.cache.now()
	if e.ttl > 0 {
		f.cache.put([]byte(key), e)
	}
	return e
}

// digest makes an upstream's reply an entry; ok is false when it is not a message that can be passed on.
func digest(msg []byte, q *question) (e *cacheEntry, rcode int, ok bool) {
	e = &cacheEntry{question: headerLen + len(q.name) + 4}
	rcode = int(msg[3] & 0xf)
	opt := record{}
	off := e.question
	an, ns, ar := int(be.Uint16(msg[6:])), int(be.Uint16(msg[8:])), int(be.Uint16(msg[10:]))
	ttl, typed, negative := uint32(maxTTL), false, uint32(0)
	haveSOA := false
	for i := range an + ns + ar {
		r, there := recordAt(msg, off)
		if !there {
			return nil, 0, false
		}
		off = r.end
		if r.typ == typeOPT {
			opt = r
			rcode |= int(msg[r.ttl]) << 4
			continue
		}
		v := be.Uint32(msg[r.ttl:])
		if v > 1<<31-1 {
			v = 0 // RFC 2181 section 8
		}
		if i < an+ns {
			ttl = min(ttl, v)
		}
		e.ttls = append(e.ttls, uint16(r.ttl))
		typed = typed || i < an && (r.typ == q.qtype || q.qtype == typeANY)
		if i >= an && i < an+ns && r.typ == typeSOA && r.end-r.data >= 4 {
			haveSOA, negative = true, min(v, be.Uint32(msg[r.end-4:]), maxNegative) // RFC 2308 section 5
		}
	}
	switch {
	case rcode != rcodeSuccess && rcode != rcodeNXDomain:
		ttl = 0
	case rcode == rcodeNXDomain || !typed:
		if ttl = min(ttl, negative); !haveSOA {
			ttl = 0
		}
	}
	e.ttl = ttl
	e.msg = append([]byte(nil), msg[:off]...) // what stands behind the last record is nobody's
	if opt.end > 0 {
		if opt.end != off { // pointers behind it would break: let the library write it anew
			e, ok = repack(e, q)
			return e, rcode, ok
		}
		e.msg = e.msg[:opt.start]
		be.PutUint16(e.msg[10:], uint16(ar-1))
	}
	clean(e)
	return e, rcode, true
}

// clean takes what is between neighbours only out of a message.
func clean(e *cacheEntry) {
	be.PutUint16(e.msg, 0)
	be.PutUint16(e.msg[2:], be.Uint16(e.msg[2:])&^(flagAA|flagRD|flagCD|flagRA|opcodeMask)|flagQR)
}

// repack writes a message anew without its OPT record.
func repack(e *cacheEntry, q *question) (*cacheEntry, bool) {
	var m dns.Msg
	if m.Unpack(e.msg) != nil {
		return nil, false
	}
	extra := m.Extra[:0]
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			extra = append(extra, rr)
		}
	}
	m.Extra, m.Compress, m.Rcode = extra, true, m.Rcode&0xf
	msg, err := m.Pack()
	// There are messages that the library reads but cannot write (FuzzRelay found a URI record).
	if err != nil || len(msg) > maxTCP {
		return nil, false
	}
	e, _, ok := digest(msg, q)
	return e, ok
}

// cut shortens an answer to limit bytes and sets TC. The library knows which records belong together.
func cut(b []byte, q *question, limit int) []byte {
	var m dns.Msg
	if err := m.Unpack(b); err == nil {
		m.Truncate(limit)
		if out, err := m.Pack(); err == nil && len(out) <= limit {
			copy(out[headerLen:], b[headerLen:q.end]) // the library keeps the case, but must not be relied on for it
			return out
		}
	}
	// It cannot be taken apart: header and question say that TCP has the rest.
	out := append(b[:0:0], b[:q.end]...)
	be.PutUint16(out[2:], be.Uint16(out[2:])|flagTC)
	for i := 6; i < headerLen; i++ {
		out[i] = 0
	}
	if q.edns {
		out = appendOPT(out, q.do, 0)
		out[11] = 1
	}
	return out
}

func (f *forwarder) addTo(s *Stats) {
	s.Upstream, s.UpstreamFail, s.Truncated = f.exchanges.Load(), f.failures.Load(), f.truncated.Load()
	s.Stale, s.Prefetched, s.Overload = f.stale.Load(), f.prefetched.Load(), f.overloaded.Load()
	s.Loops, s.FlightsShared = f.loops.Load(), f.shared.Load()
	f.cache.addTo(s)
}

func typeName(t uint16) string {
	if s, ok := dns.TypeToString[t]; ok {
		return s
	}
	return dns.Type(t).String()
}

func rcodeName(r int) string { return dns.RcodeToString[r] }
