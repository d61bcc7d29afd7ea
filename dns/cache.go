package dns

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// Times of the cache, in seconds unless they say otherwise.
const (
	maxTTL        = 24 * 3600
	maxNegative   = 3600 // RFC 2308 section 5 allows 1 to 3 hours
	failureTTL    = 1    // RFC 9520 section 3.2: failures are kept at least so long
	staleTTL      = 30   // RFC 8767 section 4
	staleFor      = 24 * time.Hour
	staleRecheck  = 30 * time.Second        // RFC 8767 section 5: failure recheck
	staleWait     = 1800 * time.Millisecond // RFC 8767 section 5: client response timer
	prefetchShare = 10                      // a name that is asked for in the last tenth of its TTL is fetched again
	prefetchMin   = 10
)

const (
	cacheShards = 16
	// CacheBytes bounds the cache's memory, in bytes, counting 200 for each entry's bookkeeping.
	CacheBytes    = 16 << 20
	entryOverhead = 200
)

// cacheEntry is one answer of an upstream: the message without id and OPT record, and when it came.
type cacheEntry struct {
	msg      []byte
	ttls     []uint16 // offsets of the TTLs in msg
	question int      // offset behind the question
	ttl      uint32
	stored   int64 // nanoseconds since the cache was made
	hits     atomic.Uint32
	fetching atomic.Bool
	recheck  atomic.Int64 // until then it is served stale without asking anyone
}

func (e *cacheEntry) expires() int64 { return e.stored + int64(e.ttl)*int64(time.Second) }

// cache holds answers of upstreams by route, name (lower case), type and flags.
type cache struct {
	start  time.Time
	limit  int // bytes of one shard
	shards [cacheShards]cacheShard
}

type cacheShard struct {
	mu      sync.RWMutex
	entries map[string]*cacheEntry
	bytes   int
	evicted uint64
}

func newCache(bytes int) *cache {
	c := &cache{start: time.Now(), limit: bytes / cacheShards}
	for i := range c.shards {
		c.shards[i].entries = map[string]*cacheEntry{}
	}
	return c
}

// now is monotonic.
func (c *cache) now() int64 { return int64(time.Since(c.start)) }

func (c *cache) shard(key []byte) *cacheShard { return &c.shards[shardOf(key)%cacheShards] }

func (c *cache) get(key []byte) *cacheEntry {
	s := c.shard(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.entries[string(key)]
}

// put stores an entry and makes room for it: among a few others, chosen by the map's random order, what is out of date
// goes first.
func (c *cache) put(key []byte, e *cacheEntry) {
	size := len(e.msg) + len(key) + entryOverhead
	if size > c.limit/8 {
		return
	}
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(string(key))
	now := c.now()
	for s.bytes+size > c.limit && len(s.entries) > 0 {
		victim, n := "", 0
		for k, x := range s.entries {
			if victim == "" || x.expires() < now {
				victim = k
			}
			if n++; n == 5 || x.expires() < now {
				break
			}
		}
		s.remove(victim)
		s.evicted++
	}
	s.entries[string(key)] = e
	s.bytes += size
}

func (s *cacheShard) remove(key string) {
	if e := s.entries[key]; e != nil {
		s.bytes -= len(e.msg) + len(key) + entryOverhead
		delete(s.entries, key)
	}
}

func (c *cache) addTo(st *Stats) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		st.CacheEntries += uint64(len(s.entries))
		st.CacheBytes += uint64(s.bytes)
		st.CacheEvicted += s.evicted
		s.mu.RUnlock()
	}
}

// key is a question in the cache, for a route.
func (q *question) key(buf []byte, r *route) []byte {
	buf = binary.BigEndian.AppendUint32(buf[:0], r.id)
	var flags byte
	if q.do {
		flags |= 1
	}
	if q.flags&flagCD != 0 {
		flags |= 2
	}
	buf = append(be.AppendUint16(buf, q.qtype), flags)
	return append(buf, q.name...)
}

// keyLen is the longest key.
const keyLen = 4 + 2 + 1 + maxName

// write makes the answer to q, which stands in req, from an entry. With stale set the TTLs are staleTTL.
func (e *cacheEntry) write(b, req []byte, q *question, age int64, stale, udp bool) []byte {
	b = append(b[:0], e.msg...)
	be.PutUint16(b, q.id)
	be.PutUint16(b[2:], be.Uint16(b[2:])|q.flags&(flagRD|flagCD)|flagRA)
	copy(b[headerLen:e.question], req[headerLen:q.end]) // the case the asker used
	elapsed := uint32(age / int64(time.Second))
	for _, at := range e.ttls {
		ttl := be.Uint32(b[at:])
		switch {
		case stale:
			ttl = staleTTL
		case ttl <= elapsed:
			ttl = 0
		default:
			ttl -= elapsed
		}
		be.PutUint32(b[at:], ttl)
	}
	if q.edns {
		b = appendOPT(b, q.do, 0)
		be.PutUint16(b[10:], be.Uint16(b[10:])+1)
	}
	if limit := q.limit(udp); len(b) > limit {
		return cut(b, q, limit)
	}
	return b
}
