package agent

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"time"

	"weft/consul"
	"weft/pkg/overlay"
	"weft/pkg/plan"
)

// claimLoop reads the leases behind claims that contradict each other: two nodes with one address, or one MAC. The older
// lease wins (pkg/plan). As long as Consul does not answer, names decide.
func (a *Agent) claimLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.claimKick:
		case <-time.After(10 * time.Second): // a lease may be freed without any record that changes
		}
		s := a.snap.Load()
		a.mu.Lock()
		joined, before := a.joined, a.leases
		a.mu.Unlock()
		if s == nil || !joined {
			continue
		}
		found, err := a.readClaims(ctx, s, plan.Disputed(s))
		if err != nil || maps.Equal(found, before) {
			continue // what is known stays
		}
		a.mu.Lock()
		a.leases = found
		a.mu.Unlock()
		a.loop.Kick()
	}
}

func (a *Agent) readClaims(ctx context.Context, s *overlay.Snapshot, claims []plan.Claim) (map[plan.Claim]uint64, error) {
	out := map[plan.Claim]uint64{}
	for _, c := range claims {
		n, ok := s.NetworkByID(c.Network)
		if !ok {
			continue
		}
		p, err := a.consul.Get(ctx, consul.LeasePath(n.Name, c.Address))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var l overlay.Lease
		if json.Unmarshal(p.Value, &l) == nil && l.Node == c.Node {
			out[c] = p.Created
		}
	}
	return out, nil
}
