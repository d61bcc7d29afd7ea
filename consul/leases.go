package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"weft/pkg/ipam"
	"weft/pkg/overlay"
)

// Leases is the ipam.Store in Consul's KV. It is safe for concurrent use.
type Leases struct{ c *Client }

var _ ipam.Store = Leases{}

// Leases returns the address leases of all networks.
func (c *Client) Leases() Leases { return Leases{c} }

// List implements ipam.Store. A value that makes no sense still takes its address: it counts as reserved.
func (s Leases) List(ctx context.Context, network string) ([]overlay.Lease, error) {
	pairs, err := s.c.List(ctx, LeasesDir(network))
	if err != nil {
		return nil, err
	}
	return s.c.ParseLeases(pairs), nil
}

// ParseLeases turns the pairs of a lease folder into leases. Keys that are no lease are left out; both these and odd
// values are logged.
func (c *Client) ParseLeases(pairs []Pair) []overlay.Lease {
	out := make([]overlay.Lease, 0, len(pairs))
	for _, p := range pairs {
		l, err := ParseLease(p)
		if err != nil {
			c.cfg.Log.Warn("lease makes no sense, its address stays taken", "key", c.key(p.Path), "err", err)
		}
		if l.Address.IsValid() {
			out = append(out, l)
		}
	}
	return out
}

// ParseLease reads one lease. When only the value is bad, the result is a reserved lease beside the error.
func ParseLease(p Pair) (overlay.Lease, error) {
	_, a, err := ParseLeasePath(p.Path)
	if err != nil {
		return overlay.Lease{}, err
	}
	l := overlay.Lease{}
	err = json.Unmarshal(p.Value, &l)
	if err == nil {
		switch l.State {
		case overlay.LeaseUsed, overlay.LeaseSpare, overlay.LeaseQuarantine, overlay.LeaseReserved:
		default:
			err = fmt.Errorf("unknown state %q", l.State)
		}
	}
	if err != nil {
		l, err = overlay.Lease{State: overlay.LeaseReserved}, fmt.Errorf("parse lease %s: %w", p.Path, err)
	}
	l.Address, l.Version, l.Created = a, p.Version, p.Created
	return l, err
}

// Create implements ipam.Store. While the sentinel is missing nothing is created: ErrUnreadable.
func (s Leases) Create(ctx context.Context, network string, l overlay.Lease) (overlay.Lease, error) {
	got, err := s.write(ctx, network, l, 0)
	if errors.Is(err, ErrConflict) {
		got, err = s.overwrite(ctx, network, l, err)
	}
	l = got
	if errors.Is(err, ErrConflict) {
		return l, fmt.Errorf("create lease: %w: %w", os.ErrExist, err)
	}
	return l, err
}

// overwrite creates a lease where one of an earlier network of the same name stands; any other keeps its place.
func (s Leases) overwrite(ctx context.Context, network string, l overlay.Lease, conflict error) (overlay.Lease, error) {
	p, err := s.c.Get(ctx, LeasePath(network, l.Address))
	if err != nil {
		return l, conflict // gone again, or not to be read: the caller looks once more
	}
	old, err := ParseLease(p)
	if err != nil || l.NetworkID == "" || old.NetworkID == "" || old.NetworkID == l.NetworkID {
		return l, conflict
	}
	return s.write(ctx, network, l, p.Version)
}

// Update implements ipam.Store.
func (s Leases) Update(ctx context.Context, network string, l overlay.Lease) (overlay.Lease, error) {
	if l.Version == 0 {
		return l, fmt.Errorf("update lease %s: version is not known", l.Address)
	}
	got, err := s.write(ctx, network, l, l.Version)
	if errors.Is(err, ErrConflict) {
		return l, s.explain(ctx, network, l)
	}
	return got, err
}

// Delete implements ipam.Store.
func (s Leases) Delete(ctx context.Context, network string, l overlay.Lease) error {
	if l.Version == 0 {
		return fmt.Errorf("delete lease %s: version is not known", l.Address)
	}
	err := s.c.Txn(ctx, DeleteCAS(LeasePath(network, l.Address), l.Version))
	if errors.Is(err, ErrConflict) {
		if err = s.explain(ctx, network, l); errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	return err
}

func (s Leases) write(ctx context.Context, network string, l overlay.Lease, version uint64) (overlay.Lease, error) {
	value, err := encode(l)
	if err != nil {
		return l, err
	}
	pairs, err := s.c.TxnPairs(ctx, CAS(LeasePath(network, l.Address), value, version), s.c.checkSentinel())
	if errors.Is(err, ErrConflict) && s.c.moved(ctx) {
		return l, &Error{Op: "write", Key: s.c.key(LeasePath(network, l.Address)), Kind: ErrUnreadable,
			Hint: "Consul was wiped a moment ago: the nodes have to put back what they hold first"}
	}
	if err != nil {
		return l, err
	}
	l.Version, l.Created = pairs[0].Version, pairs[0].Created
	return l, nil
}

// explain tells a lease that is gone from one that another writer changed.
func (s Leases) explain(ctx context.Context, network string, l overlay.Lease) error {
	if _, err := s.c.Get(ctx, LeasePath(network, l.Address)); err != nil {
		return err
	}
	return fmt.Errorf("write lease %s of network %s: %w", l.Address, network, ipam.ErrConflict)
}

// Recall asks the nodes on a network for their spare addresses; they watch RecallDir. The value differs each time,
// since a write that changes nothing wakes no watcher.
func (c *Client) Recall(ctx context.Context, network, node string) error {
	value, err := encode(struct {
		Node string    `json:"node"`
		At   time.Time `json:"at"`
	}{node, time.Now().UTC()})
	if err != nil {
		return err
	}
	return c.Txn(ctx, Set(RecallPath(network), value))
}
