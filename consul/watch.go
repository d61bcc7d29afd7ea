package consul

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
)

// Watching follows https://developer.hashicorp.com/consul/api-docs/features/blocking: an unchanged index is no news,
// a lower one starts over at 0, and contents are compared before anyone is woken. Reads go to the leader in default
// mode; such an answer can be old just after an election (the leader answers before it has replayed its log), so an
// answer that takes something away is confirmed with a consistent read before it is believed.
//
// A trap: deleting a parent folder recursively may not wake a watch of a folder in it. Consul 1.20 derives the index of
// a folder that became empty from tombstones, and a recursive delete leaves one at the parent only; an older tombstone
// inside then gives an index that is no news (agent/consul/state/kvs.go, kvsListTxn). So a wipe is noticed by
// WatchCluster; a watch of a folder finds out with its next write or at the end of its wait.

const (
	watchWait     = 5 * time.Minute
	watchSlack    = 15 * time.Second // beyond the wait and the 1/16 that Consul adds
	minInterval   = 5 * time.Millisecond
	firstBackoff  = 100 * time.Millisecond
	maxBackoff    = 10 * time.Second
	proberBackoff = time.Second
)

// Watch calls fn with all keys below dir, ordered by path, once at first and then whenever they change, in the
// caller's goroutine. An answer that is not believable is never passed on: not an error, and not an empty or shrunken
// list without the sentinel. It returns nil when ctx ends, and not before.
func (c *Client) Watch(ctx context.Context, dir string, fn func([]Pair)) error {
	return c.WatchWith(ctx, dir, fn, nil)
}

// WatchWith is Watch that also reports its troubles: failed, when not nil, is called with every error
// (ErrUnavailable, ErrUnreadable) and with nil at the first good answer after one.
func (c *Client) WatchWith(ctx context.Context, dir string, fn func([]Pair), failed func(error)) error {
	w := &kvWatch{c: c, dir: dir, key: c.dirKey(dir), fn: fn}
	return c.follow(ctx, w.poll, failed)
}

type kvWatch struct {
	c        *Client
	dir, key string
	fn       func([]Pair)
	last     []Pair
	have     bool
	doubt    bool // the last answer was an error
}

func (w *kvWatch) poll(ctx context.Context, index uint64) (uint64, error) {
	next, err := w.ask(ctx, index)
	w.doubt = err != nil
	return next, err
}

func (w *kvWatch) ask(ctx context.Context, index uint64) (uint64, error) {
	var pairs []Pair
	next, err := w.c.block(ctx, w.key, w.c.needRead(), index, func(q *api.QueryOptions) (next uint64, err error) {
		pairs, next, err = w.c.list(w.key, q)
		return next, err
	})
	if err != nil || w.have && !w.doubt && samePairs(w.last, pairs) {
		return next, err
	}
	if !w.have || w.doubt || takesAway(w.last, pairs) {
		if pairs, err = w.confirm(ctx); err != nil || w.have && samePairs(w.last, pairs) {
			return next, err
		}
	}
	w.last, w.have = pairs, true
	w.fn(slices.Clone(pairs))
	return next, nil
}

func (w *kvWatch) confirm(ctx context.Context) ([]Pair, error) {
	if _, err := w.c.Cluster(ctx); err != nil {
		return nil, fmt.Errorf("watch %s: %w", w.key, err)
	}
	return w.c.List(ctx, w.dir)
}

// block runs one blocking query; index 0 answers at once.
func (c *Client) block(ctx context.Context, key, need string, index uint64, f func(*api.QueryOptions) (uint64, error)) (next uint64, err error) {
	wait := watchWait - time.Duration(rand.Int64N(int64(watchWait/10)))
	limit := requestTimeout
	if index > 0 {
		limit = wait + wait/16 + watchSlack
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = c.exchange(ctx, "watch", key, need, func(q *api.QueryOptions) (err error) {
		q.WaitIndex, q.WaitTime = index, wait
		next, err = f(q)
		return err
	})
	return next, err
}

// follow is the loop around poll, which asks for news after an index and deals with them itself.
func (c *Client) follow(ctx context.Context, poll func(ctx context.Context, index uint64) (uint64, error), failed func(error)) error {
	var (
		index   uint64
		failing bool
		pause   = retry{c: c}
	)
	defer pause.done()
	for ctx.Err() == nil {
		next, err := poll(ctx, index)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			index, failing = 0, true
			if failed != nil {
				failed(err)
			}
			pause.wait(ctx)
			continue
		case failing:
			failing = false
			pause.done()
			if failed != nil {
				failed(nil)
			}
		}
		if next < index {
			index = 0
		} else {
			index = max(next, 1) // 0 would not block
		}
		sleep(ctx, minInterval)
	}
	return nil
}

// retry is the backoff of one watch: 100 ms doubling to 10 s, with jitter. Of all failing watches of a client one
// tries at least every second, so that the mending of a partition is noticed quickly without all of them asking; its
// success, or any answer after silence, wakes the others.
type retry struct {
	c      *Client
	delay  time.Duration
	prober bool
}

func (r *retry) wait(ctx context.Context) {
	r.c.mu.Lock()
	if !r.prober && !r.c.prober {
		r.prober, r.c.prober = true, true
	}
	back := r.c.back
	r.c.mu.Unlock()
	limit := maxBackoff
	if r.prober {
		limit = proberBackoff
	}
	r.delay = min(max(2*r.delay, firstBackoff), limit)
	timer := time.NewTimer(r.delay/2 + rand.N(r.delay/2+1))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-back:
		sleep(ctx, rand.N(firstBackoff))
	}
}

// done ends a failure: the delay starts anew, and who else waits may try.
func (r *retry) done() {
	r.delay = 0
	if !r.prober {
		return
	}
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	r.prober, r.c.prober = false, false
	r.c.wake()
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func samePairs(a, b []Pair) bool {
	return slices.EqualFunc(a, b, func(x, y Pair) bool {
		return x.Path == y.Path && x.Version == y.Version && x.Created == y.Created && bytes.Equal(x.Value, y.Value)
	})
}

// takesAway reports whether a key of before is missing from after, or was deleted and made again; both are ordered.
func takesAway(before, after []Pair) bool {
	i := 0
	for _, b := range before {
		for i < len(after) && after[i].Path < b.Path {
			i++
		}
		if i == len(after) || after[i].Path != b.Path || after[i].Created != b.Created {
			return true
		}
	}
	return false
}
