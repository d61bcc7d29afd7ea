package consul_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"weft/consul"
	"weft/consul/consultest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func client(t *testing.T, cfg consul.Config) *consul.Client {
	t.Helper()
	c, err := consul.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// dev is a fresh server with a client whose cluster exists.
func dev(t *testing.T) (*consultest.Server, *consul.Client) {
	t.Helper()
	s := consultest.Start(t, "")
	c := client(t, consul.Config{Address: s.Address})
	if _, err := c.EnsureCluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, c
}

func put(t *testing.T, c *consul.Client, path, value string) {
	t.Helper()
	if err := c.Txn(t.Context(), consul.Set(path, []byte(value))); err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("error is %v, want %v", err, target)
	}
	for _, other := range []error{consul.ErrUnavailable, consul.ErrUnreadable} {
		if other != target && errors.Is(err, other) {
			t.Errorf("error %v is also %v", err, other)
		}
	}
}

// background runs f until the test ends, and waits for its end.
func background(t *testing.T, f func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the loop ended with %v, want nil", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("the loop did not end with its context")
		}
	}
	t.Cleanup(stop)
	return stop
}

func next[T any](t *testing.T, what string, c <-chan T, within time.Duration) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(within):
		t.Fatalf("no %s within %v", what, within)
	}
	return v
}

func silent[T any](t *testing.T, what string, c <-chan T, during time.Duration) {
	t.Helper()
	select {
	case v := <-c:
		t.Errorf("unexpected %s: %v", what, v)
	case <-time.After(during):
	}
}
