package reconcile

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

// bubble runs f beside a loop over k that works towards *want; the loop must end with its context.
func bubble(t *testing.T, k *kernel, want *atomic.Pointer[kstate.State], change func(*Config), f func(*testing.T, *Loop)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Want: func() (*kstate.State, []overlay.Problem) { return want.Load(), nil }, Observe: k.Observe, Apply: k.Apply,
			Log: quiet()}
		if change != nil {
			change(&cfg)
		}
		l := New(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		end := make(chan error, 1)
		go func() { end <- l.Run(ctx) }()
		f(t, l)
		cancel()
		synctest.Wait()
		select {
		case err := <-end:
			if err != nil {
				t.Errorf("Run = %v", err)
			}
		default:
			t.Error("Run goes on after its context")
		}
	})
}

func wanting(s *kstate.State) *atomic.Pointer[kstate.State] {
	var p atomic.Pointer[kstate.State]
	p.Store(s)
	return &p
}

// slow makes every pass take d.
func slow(d time.Duration) func(*Config) {
	return func(c *Config) {
		observe := c.Observe
		c.Observe = func(ctx context.Context, want *kstate.State) (*kstate.State, error) {
			s, err := observe(ctx, want)
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
			return s, err
		}
	}
}

func TestKicksCoalesce(t *testing.T) {
	k := newKernel()
	bubble(t, k, wanting(world("aa")), func(c *Config) { slow(time.Second)(c); c.Resync = time.Hour }, func(t *testing.T, l *Loop) {
		time.Sleep(10 * time.Second) // the first pass and the one that verifies it
		before := l.Status().Passes
		if before != 2 {
			t.Errorf("%d passes before a kick", before)
		}
		l.Kick()
		time.Sleep(100 * time.Millisecond) // a pass is under way
		for range 100 {
			l.Kick()
		}
		time.Sleep(10 * time.Second)
		if n := l.Status().Passes - before; n != 2 {
			t.Errorf("101 kicks made %d passes, want one under way and one after it", n)
		}
	})
}

func TestResyncAndVerify(t *testing.T) {
	k := newKernel()
	bubble(t, k, wanting(world("aa")), nil, func(t *testing.T, l *Loop) {
		synctest.Wait()
		st := l.Status()
		if st.Passes != 1 || st.Applied == 0 || st.Failed != 0 || st.LastChange.IsZero() || st.Last.Want == nil {
			t.Errorf("after the first pass: %+v", st)
		}
		time.Sleep(verifyAfter)
		synctest.Wait()
		if l.Status().Passes != 2 {
			t.Error("a change was not verified")
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := l.Status(); got.Passes != 12 || got.Applied != st.Applied {
			t.Errorf("%d passes in 20 s with a resync of 2 s, %d operations", got.Passes-2, got.Applied-st.Applied)
		}
		// What is taken away behind the loop's back is there again after the next resync.
		k.do(func() { delete(k.items, kstate.Up{NS: "weft-n-aa", Link: "br0"}.Key()) })
		k.take()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := k.take(); got != "add weft-n-aa up br0\n" {
			t.Errorf("repaired with:\n%s", got)
		}
	})
}

// Do's result is that of a pass that began after the call, even when one is under way.
func TestDo(t *testing.T) {
	k, want := newKernel(), wanting(world("aa"))
	bubble(t, k, want, func(c *Config) { slow(time.Second)(c); c.Resync = time.Hour }, func(t *testing.T, l *Loop) {
		time.Sleep(500 * time.Millisecond) // the first pass has read its want
		next := world("aa", "bb")
		want.Store(next)
		r, err := l.Do(t.Context())
		if err != nil || r.Want != next || r.Applied == 0 || !k.there("weft-n-bb", kstate.Bridge) {
			t.Errorf("Do = %v applied, %v: not the result of a pass that began after the call", r.Applied, err)
		}
		results := make(chan Result, 10)
		passes := l.Status().Passes
		for range 10 {
			go func() {
				r, err := l.Do(t.Context())
				if err != nil {
					t.Error(err)
				}
				results <- r
			}()
		}
		time.Sleep(5 * time.Second)
		if len(results) != 10 {
			t.Errorf("%d of 10 have their result", len(results))
		}
		if n := l.Status().Passes - passes; n > 3 {
			t.Errorf("10 at once made %d passes", n)
		}
	})
}

func TestDoGivesUp(t *testing.T) {
	k := newKernel()
	bubble(t, k, wanting(world("aa")), slow(time.Hour), func(t *testing.T, l *Loop) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("no patience"))
		defer cancel()
		if _, err := l.Do(ctx); err == nil || err.Error() != "wait for a pass: no patience" {
			t.Errorf("Do = %v", err)
		}
		time.Sleep(3 * time.Hour) // the pass it asked for is made, and its result is nobody's
	})
}

func TestDoAfterEnd(t *testing.T) {
	k := newKernel()
	var l *Loop
	bubble(t, k, wanting(world("aa")), nil, func(_ *testing.T, running *Loop) { l = running; synctest.Wait() })
	if _, err := l.Do(t.Context()); err == nil {
		t.Error("Do has a result after the loop has ended")
	}
	// One that waits when the loop ends is told so.
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Log: quiet()})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		got := make(chan error, 1)
		go func() { _, err := l.Do(t.Context()); got <- err }()
		synctest.Wait()
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
		if err := <-got; err == nil {
			t.Error("no error for who waited")
		}
	})
}

func TestNilWant(t *testing.T) {
	k, want := newKernel(), wanting(nil)
	var after atomic.Int32
	bubble(t, k, want, func(c *Config) { c.After = func(context.Context, Result) { after.Add(1) } }, func(t *testing.T, l *Loop) {
		r, err := l.Do(t.Context())
		if err != nil || r.Want != nil || r.Applied != 0 || r.Err != nil {
			t.Errorf("Do = %+v, %v", r, err)
		}
		if got := k.take(); got != "" || after.Load() == 0 {
			t.Errorf("nothing was wanted, but done:\n%s(After ran %d times)", got, after.Load())
		}
		want.Store(world("aa"))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !k.there("weft-n-aa", kstate.Bridge) {
			t.Error("nothing is made once something is wanted")
		}
	})
}

func TestObserveError(t *testing.T) {
	k := newKernel()
	k.blind = errors.New("dump interrupted")
	bubble(t, k, wanting(world("aa")), nil, func(t *testing.T, l *Loop) {
		r, err := l.Do(t.Context())
		if err != nil || r.Err == nil || r.Err.Error() != "observe the kernel: dump interrupted" {
			t.Errorf("Do = %v, %v", r.Err, err)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got := k.take(); got != "" {
			t.Errorf("changed blindly:\n%s", got)
		}
		before := l.Status().Passes
		time.Sleep(10 * time.Minute)
		if n := l.Status().Passes - before; n < 20 || n > 90 { // one in 7.5 to 15 s
			t.Errorf("%d passes in 10 min of blindness", n)
		}
		k.do(func() { k.blind = nil })
		time.Sleep(backoffMax)
		synctest.Wait()
		if st := l.Status(); st.Last.Err != nil || st.Applied == 0 || !k.there("weft-n-aa", "eaa1") {
			t.Errorf("not recovered: %+v", st)
		}
	})
}

// A failure is retried soon, then at the pace of resync: what else is wanted is repaired in time all the same.
func TestBackoff(t *testing.T) {
	k := newKernel()
	k.faults = []string{"link eaa1"}
	bubble(t, k, wanting(world("aa", "bb")), nil, func(t *testing.T, l *Loop) {
		time.Sleep(time.Second)
		synctest.Wait()
		if n := l.Status().Passes; n < 3 || n > 8 {
			t.Errorf("%d passes in the first second of a failure", n)
		}
		time.Sleep(5 * time.Minute)
		before := l.Status()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := l.Status().Passes - before.Passes; n < 29 || n > 45 {
			t.Errorf("%d passes a minute, want about one in 2 s", n)
		}
		if l.Status().Failed == before.Failed || l.Status().Applied != before.Applied {
			t.Errorf("status %+v", l.Status())
		}
		k.do(func() { delete(k.items, kstate.Up{NS: "weft-n-bb", Link: "br0"}.Key()) })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !hasUp(k, "weft-n-bb", "br0") {
			t.Error("bb is not repaired while aa fails")
		}
		k.do(func() { k.faults = nil })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if st := l.Status(); len(st.Last.Failed) != 0 || !hasUp(k, "weft-n-aa", "eaa1") {
			t.Errorf("not recovered: %+v", st.Last)
		}
	})
}

func hasUp(k *kernel, ns, name string) (ok bool) {
	k.do(func() { _, ok = k.items[kstate.Up{NS: ns, Link: name}.Key()] })
	return ok
}

// The end of the context ends a pass between two operations, and its failure is nobody's.
func TestRunEndsDuringPass(t *testing.T) {
	k := newKernel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		l := New(Config{Want: func() (*kstate.State, []overlay.Problem) { return world("aa"), nil }, Observe: k.Observe, Log: quiet(),
			After: func(context.Context, Result) { t.Error("After ran after the end") },
			Apply: func(ctx context.Context, op kstate.Op) error {
				if n++; n == 5 {
					cancel()
				}
				return k.Apply(ctx, op)
			}})
		if err := l.Run(ctx); err != nil || n != 5 {
			t.Errorf("Run = %v after %d operations", err, n)
		}
	})
}
