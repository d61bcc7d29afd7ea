package agent

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

// guardEvery is the mean time between two looks at this node's own records in Consul, jittered, wall time.
const guardEvery = 30 * time.Second

// guardLoop reads this node's own records now and then: somebody may have written over one without touching its
// revision, and then no watch tells. Nodes that are there already do not care; new ones would wait for it.
func (a *Agent) guardLoop(ctx context.Context) error {
	for wait(ctx, guardEvery/2+rand.N(guardEvery)) {
		a.mu.Lock()
		joined := a.joined && !a.leaving && a.ledger != nil
		var paths []string
		if joined {
			for path := range a.synced {
				if strings.HasPrefix(path, "nodes/") || strings.HasPrefix(path, "endpoints/") {
					paths = append(paths, path)
				}
			}
		}
		a.mu.Unlock()
		for _, path := range paths {
			p, err := a.consul.Get(ctx, path)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				break // the next round, or a watch, finds out
			}
			a.mu.Lock()
			if r, ok := a.ledger.Get(path); ok && a.synced[path] == r.Revision && !bytes.Equal(r.Value, p.Value) {
				a.log.Warn("this node's own record in Consul is not what it wrote: written again", "path", path)
				a.synced[path] = 0
				kick(a.publishKick)
			}
			a.mu.Unlock()
		}
	}
	return nil
}
