package ipamtest

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"

	"weft/pkg/ipam"
	"weft/pkg/overlay"
)

// ErrDown is what a store answers while it is down.
var ErrDown = errors.New("store is down")

// Store is an ipam.Store in memory, safe for concurrent use; the zero value is empty and up.
type Store struct {
	mu     sync.Mutex
	leases map[string]map[netip.Addr]overlay.Lease
	index  uint64
	down   bool
	fault  func(op string) (before, after error)
	calls  map[string]int
}

// SetDown makes every call fail with ErrDown, without effect, or ends that.
func (s *Store) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// SetFault injects failures: before each call ("list", "create", "update", "delete") f says with which error it fails
// without effect, or which error it answers although it took effect. Nil ends that.
func (s *Store) SetFault(f func(op string) (before, after error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Wipe forgets all leases.
func (s *Store) Wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases = nil
}

// Put stores a lease whatever is there, as an operator could.
func (s *Store) Put(network string, l overlay.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index++
	l.Created, l.Version = s.index, s.index
	s.put(network, l)
}

// Calls counts the calls of op so far.
func (s *Store) Calls(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

func (s *Store) put(network string, l overlay.Lease) {
	if s.leases == nil {
		s.leases = map[string]map[netip.Addr]overlay.Lease{}
	}
	if s.leases[network] == nil {
		s.leases[network] = map[netip.Addr]overlay.Lease{}
	}
	s.leases[network][l.Address] = l
}

// do runs f under the lock, with the faults that are set.
func (s *Store) do(ctx context.Context, op string, f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls = map[string]int{}
	}
	s.calls[op]++
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.down {
		return ErrDown
	}
	var before, after error
	if s.fault != nil {
		before, after = s.fault(op)
	}
	if before != nil {
		return before
	}
	if err := f(); err != nil {
		return err
	}
	return after
}

// List implements ipam.Store.
func (s *Store) List(ctx context.Context, network string) (out []overlay.Lease, err error) {
	err = s.do(ctx, "list", func() error {
		for _, l := range s.leases[network] {
			out = append(out, l)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Create implements ipam.Store.
func (s *Store) Create(ctx context.Context, network string, l overlay.Lease) (overlay.Lease, error) {
	err := s.do(ctx, "create", func() error {
		if _, ok := s.leases[network][l.Address]; ok {
			return os.ErrExist
		}
		s.index++
		l.Created, l.Version = s.index, s.index
		s.put(network, l)
		return nil
	})
	return l, err
}

// Update implements ipam.Store.
func (s *Store) Update(ctx context.Context, network string, l overlay.Lease) (overlay.Lease, error) {
	err := s.do(ctx, "update", func() error {
		old, ok := s.leases[network][l.Address]
		switch {
		case !ok:
			return os.ErrNotExist
		case old.Version != l.Version:
			return ipam.ErrConflict
		}
		s.index++
		l.Created, l.Version = old.Created, s.index
		s.put(network, l)
		return nil
	})
	return l, err
}

// Delete implements ipam.Store.
func (s *Store) Delete(ctx context.Context, network string, l overlay.Lease) error {
	return s.do(ctx, "delete", func() error {
		old, ok := s.leases[network][l.Address]
		if ok && old.Version != l.Version {
			return ipam.ErrConflict
		}
		delete(s.leases[network], l.Address)
		return nil
	})
}
