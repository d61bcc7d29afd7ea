package ipam

import (
	"context"
	"errors"
	"fmt"
	"os"

	"weft/pkg/overlay"
)

// ErrConflict says that a lease was not as the writer expected: somebody else changed it.
var ErrConflict = errors.New("lease changed by another writer")

// Store holds the leases of all nodes. It must be safe for concurrent use. An error other than the ones named means
// that the outcome is not known.
type Store interface {
	// List returns every lease of a network, in any order. An error is never an empty list.
	List(ctx context.Context, network string) ([]overlay.Lease, error)
	// Create stores a lease if its address is not taken, else os.ErrExist; the result has Created and Version set.
	Create(ctx context.Context, network string, l overlay.Lease) (overlay.Lease, error)
	// Update writes a lease if it still has l.Version, else ErrConflict, or os.ErrNotExist when it is gone.
	Update(ctx context.Context, network string, l overlay.Lease) (overlay.Lease, error)
	// Delete removes a lease if it still has l.Version, else ErrConflict; one that is gone is success.
	Delete(ctx context.Context, network string, l overlay.Lease) error
}

// Free deletes all leases that node holds on the network with that name and id, and returns how many: for a node that has left, by its own
// signed word or an operator's, never for one that is merely silent.
func Free(ctx context.Context, s Store, network string, id overlay.NetworkID, node string) (int, error) {
	leases, err := s.List(ctx, network)
	if err != nil {
		return 0, fmt.Errorf("free leases of node %s on network %s: %w", node, network, err)
	}
	var (
		n    int
		errs []error
	)
	for _, l := range leases {
		if l.Node != node || l.State == overlay.LeaseReserved || l.NetworkID != "" && l.NetworkID != id {
			continue
		}
		if err := s.Delete(ctx, network, l); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("free lease %s of node %s: %w", l.Address, node, err))
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}
