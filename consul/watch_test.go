package consul_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/consul"
)

type watched struct {
	news   chan string // the paths and values of each delivery
	failed chan error
}

func watch(t *testing.T, c *consul.Client, dir string) watched {
	w := watched{make(chan string, 1000), make(chan error, 1000)}
	background(t, func(ctx context.Context) error {
		return c.WatchWith(ctx, dir, func(pairs []consul.Pair) {
			var b strings.Builder
			for _, p := range pairs {
				fmt.Fprintf(&b, "%s=%s ", strings.TrimPrefix(p.Path, dir+"/"), p.Value)
			}
			w.news <- b.String()
		}, func(err error) { w.failed <- err })
	})
	return w
}

func (w watched) want(t *testing.T, text string) {
	t.Helper()
	if got := next(t, "delivery", w.news, 15*time.Second); got != text {
		t.Errorf("delivered %q, want %q", got, text)
	}
}

func TestWatch(t *testing.T) {
	s, c := dev(t)
	w := watch(t, c, "revs/net")
	w.want(t, "")
	put(t, c, "revs/net/n2", "1")
	w.want(t, "n2=1 ")
	put(t, c, "revs/net/n10", "1")
	w.want(t, "n10=1 n2=1 ")
	put(t, c, "revs/net/n2", "2")
	w.want(t, "n10=1 n2=2 ")

	put(t, c, "revs/net/n2", "2") // the same again
	put(t, c, "revs/network/n2", "3")
	put(t, c, "nodes/n2", "3")
	silent(t, "delivery", w.news, 200*time.Millisecond)

	s.CLI("kv", "delete", "weft/revs/net/n10")
	w.want(t, "n2=2 ")
	s.CLI("kv", "delete", "weft/revs/net/n2")
	w.want(t, "") // empty, and the sentinel is there
	silent(t, "error", w.failed, 0)
}

func TestWipeIsNotEmpty(t *testing.T) {
	s, c := dev(t)
	put(t, c, "revs/net/n1", "5")
	put(t, c, "revs/other/n1", "5")
	w := watch(t, c, "revs/net")
	w.want(t, "n1=5 ")
	sentinel := make(chan error, 100)
	background(t, func(ctx context.Context) error {
		return c.WatchCluster(ctx, func(err error) { sentinel <- err }, nil)
	})
	// With a tombstone inside, the watch of the folder would not be woken by the wipe; the one of the sentinel is.
	put(t, c, "revs/other/n1", "6")
	s.CLI("kv", "delete", "-recurse", "weft/")
	wantErr(t, next(t, "error", w.failed, 5*time.Second), consul.ErrUnreadable)
	wantErr(t, next(t, "error", sentinel, 5*time.Second), consul.ErrUnreadable)
	silent(t, "delivery", w.news, 500*time.Millisecond)
	put(t, c, "revs/net/n1", "6") // somebody writes before the sentinel is back
	silent(t, "delivery", w.news, 1500*time.Millisecond)
	if _, err := c.EnsureCluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.want(t, "n1=6 ")
	put(t, c, "revs/net/n1", "7")
	w.want(t, "n1=7 ")
	for _, ch := range []chan error{w.failed, sentinel} {
		for deadline := time.Now().Add(15 * time.Second); ; {
			if err := next(t, "report", ch, time.Until(deadline)); err == nil {
				break // it works again
			}
		}
	}
}

func TestWipeWithTombstones(t *testing.T) {
	s, c := dev(t)
	sentinel := make(chan error, 100)
	background(t, func(ctx context.Context) error {
		return c.WatchCluster(ctx, func(err error) { sentinel <- err }, nil)
	})
	for _, path := range []string{"revs/net/n1", "revs/net/n2"} {
		put(t, c, path, "1")
	}
	s.CLI("kv", "delete", "weft/revs/net/n2")
	put(t, c, "revs/net/n1", "2")
	w := watch(t, c, "revs/net")
	w.want(t, "n1=2 ")
	s.CLI("kv", "delete", "-recurse", "weft/")
	wantErr(t, next(t, "error", sentinel, 5*time.Second), consul.ErrUnreadable)
	put(t, c, "revs/net/n9", "1")
	wantErr(t, next(t, "error", w.failed, 5*time.Second), consul.ErrUnreadable)
	silent(t, "delivery", w.news, 100*time.Millisecond)
}

func TestWatchSurvivesConsul(t *testing.T) {
	s, c := dev(t)
	put(t, c, "nodes/n1", "1")
	for i := range 20 { // so that the index of the next Consul is lower
		put(t, c, "filler", fmt.Sprint(i))
	}
	w := watch(t, c, "nodes")
	w.want(t, "n1=1 ")
	other := watch(t, c, "revs")
	other.want(t, "")

	s.Stop()
	wantErr(t, next(t, "error", w.failed, 5*time.Second), consul.ErrUnavailable)
	wantErr(t, next(t, "error", other.failed, 5*time.Second), consul.ErrUnavailable)
	time.Sleep(3 * time.Second) // long enough for the backoff to grow
	silent(t, "delivery", w.news, 0)
	s.Start() // empty: its index went backwards
	time.Sleep(1500 * time.Millisecond)
	silent(t, "delivery", w.news, 0)
	silent(t, "delivery", other.news, 0)
	start := time.Now()
	if _, err := c.EnsureCluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, c, "nodes/n1", "2")
	w.want(t, "n1=2 ")
	put(t, c, "revs/x", "1")
	other.want(t, "x=1 ")
	t.Logf("recovery took %v", time.Since(start))
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("recovery took %v", d)
	}
	put(t, c, "nodes/n1", "3")
	w.want(t, "n1=3 ")
	if st := c.Status(); !st.OK || !st.LastContact.After(st.LastErrorAt) {
		t.Errorf("status is %+v", st)
	}
}

func TestWatchIsQuick(t *testing.T) {
	_, c := dev(t)
	for i := range 50 {
		put(t, c, fmt.Sprint("nodes/filler", i), "1")
	}
	news := make(chan time.Time, 100)
	background(t, func(ctx context.Context) error {
		return c.Watch(ctx, "nodes", func([]consul.Pair) { news <- time.Now() })
	})
	next(t, "delivery", news, 5*time.Second)
	var delays []time.Duration
	for i := range 21 {
		time.Sleep(20 * time.Millisecond)
		put(t, c, "nodes/n1", fmt.Sprint(i))
		done := time.Now()
		delays = append(delays, next(t, "delivery", news, 5*time.Second).Sub(done))
	}
	slices.Sort(delays)
	t.Logf("from a write's end to the delivery: median %v, worst %v", delays[10], delays[20])
	if delays[10] > 200*time.Millisecond { // generous: the figure is for the log, the machine may be busy
		t.Errorf("median delay is %v", delays[10])
	}
}
