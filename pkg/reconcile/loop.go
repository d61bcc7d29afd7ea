package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"weft/pkg/kstate"
	"weft/pkg/overlay"
	"weft/pkg/plan"
)

// Config says what a Loop works on. All functions are called from one goroutine only.
type Config struct {
	// Want computes the wanted state from the newest snapshot; nil state means "nothing can be decided yet".
	Want func() (*kstate.State, []overlay.Problem)
	// Observe reads the kernel; want names what else than weft's own marks must be looked at.
	Observe func(ctx context.Context, want *kstate.State) (*kstate.State, error)
	Apply   func(context.Context, kstate.Op) error
	// After runs at the end of every pass, for what follows the data path (listeners); nil for nothing.
	After func(ctx context.Context, r Result)
	Log   *slog.Logger
	// Resync is the time between passes when nothing kicks the loop (wall time, default 2 s).
	Resync time.Duration
}

// Result is the outcome of one pass.
type Result struct {
	// Want is what the pass worked towards; nil when nothing could be decided.
	Want     *kstate.State
	Problems []overlay.Problem
	Applied  int
	Failed   []OpError
	// Err is set when the kernel could not be observed; then nothing was changed.
	Err error
}

// Status counts the passes of a Loop.
type Status struct {
	Passes, Applied, Failed uint64
	LastChange              time.Time
	Last                    Result
}

// Loop is the reconcile loop. Kick, Do and Status are safe for concurrent use; Run is called once.
type Loop struct {
	cfg  Config
	kick chan struct{}

	mu      sync.Mutex
	status  Status
	waiters []chan Result
	closed  bool
}

// New returns a loop that does nothing until Run.
func New(cfg Config) *Loop {
	if cfg.Resync == 0 {
		cfg.Resync = 2 * time.Second
	}
	return &Loop{cfg: cfg, kick: make(chan struct{}, 1)}
}

// Kick asks for a pass; kicks during a pass coalesce into one.
func (l *Loop) Kick() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Do asks for a pass that begins after the call and returns its result.
func (l *Loop) Do(ctx context.Context) (Result, error) {
	ch := make(chan Result, 1)
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return Result{}, fmt.Errorf("wait for a pass: the loop has ended")
	}
	l.waiters = append(l.waiters, ch)
	l.mu.Unlock()
	l.Kick()
	select {
	case r, ok := <-ch:
		if !ok {
			return Result{}, fmt.Errorf("wait for a pass: the loop has ended")
		}
		return r, nil
	case <-ctx.Done():
		return Result{}, fmt.Errorf("wait for a pass: %w", context.Cause(ctx))
	}
}

// Status is safe to call at any time.
func (l *Loop) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// The loop's clocks, wall time. A pass that changed something is soon followed by one that must find nothing to do. An
// operation that fails is retried with backoff, but no later than Resync: what others have is repaired at that pace. Only
// while the kernel cannot be read at all, and no pass does anything, the pauses grow to backoffMax.
const (
	verifyAfter = 300 * time.Millisecond
	backoffMin  = 100 * time.Millisecond
	backoffMax  = 15 * time.Second
)

// Run makes passes until ctx ends. It always returns nil: a pass that fails is repeated, with backoff.
func (l *Loop) Run(ctx context.Context) error {
	defer l.close()
	backoff := backoffMin
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.kick:
		case <-timer.C:
		}
		if ctx.Err() != nil {
			return nil
		}
		r := l.pass(ctx)
		next := l.cfg.Resync
		switch {
		case r.Err != nil || len(r.Failed) > 0:
			pause := backoff/2 + rand.N(backoff)
			if r.Err != nil {
				next = min(pause, backoffMax)
			} else {
				next = min(pause, l.cfg.Resync)
			}
			backoff = min(backoff*2, backoffMax)
		case r.Applied > 0:
			next, backoff = verifyAfter, backoffMin
		default:
			backoff = backoffMin
		}
		timer.Reset(next)
	}
}

func (l *Loop) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, ch := range l.waiters {
		close(ch)
	}
	l.waiters = nil
}

func (l *Loop) pass(ctx context.Context) Result {
	l.mu.Lock()
	waiters := l.waiters
	l.waiters = nil
	l.mu.Unlock()
	r := l.reconcile(ctx)
	if ctx.Err() == nil && l.cfg.After != nil {
		l.cfg.After(ctx, r)
	}
	l.mu.Lock()
	l.status.Passes++
	l.status.Applied += uint64(r.Applied)
	l.status.Failed += uint64(len(r.Failed))
	if r.Applied > 0 {
		l.status.LastChange = time.Now()
	}
	l.status.Last = r
	l.mu.Unlock()
	for _, ch := range waiters {
		ch <- r
	}
	return r
}

func (l *Loop) reconcile(ctx context.Context) Result {
	want, problems := l.cfg.Want()
	r := Result{Want: want, Problems: problems}
	if want == nil {
		return r
	}
	have, err := l.cfg.Observe(ctx, want)
	if err != nil {
		r.Err = fmt.Errorf("observe the kernel: %w", err)
		l.log(ctx, r)
		return r
	}
	ops := plan.Diff(want, have)
	r.Applied, r.Failed = Execute(ctx, want.Depends, ops, func(ctx context.Context, op kstate.Op) error {
		err := l.cfg.Apply(ctx, op)
		l.cfg.Log.Debug("apply", "op", op.String(), "err", err)
		return err
	})
	l.log(ctx, r)
	return r
}

// log reports a failed pass once: the same failure again is only for debugging.
func (l *Loop) log(ctx context.Context, r Result) {
	if ctx.Err() != nil {
		return
	}
	err := r.Err
	if err == nil {
		err = Join(tried(r.Failed))
	}
	l.mu.Lock()
	last := l.status.Last
	l.mu.Unlock()
	before := last.Err
	if before == nil {
		before = Join(tried(last.Failed))
	}
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		l.cfg.Log.Warn("reconcile pass incomplete, will retry", "err", err)
	case err == nil && before != nil:
		l.cfg.Log.Info("reconcile pass complete again")
	}
}

func tried(failed []OpError) []OpError {
	var out []OpError
	for _, f := range failed {
		if !f.Skipped {
			out = append(out, f)
		}
	}
	return out
}
