package agent

import (
	"context"
	"errors"
	"os"
	"time"

	"weft/pkg/netns"
	"weft/pkg/overlay"
)

// The clocks of endpoints whose workload has gone, wall time.
const (
	reapEvery = 500 * time.Millisecond
	endedFor  = 400 * time.Millisecond // a process must be seen ended twice: see parseStat
	goneFor   = 5 * time.Second        // a namespace path must lead nowhere for so long: runtimes move theirs about
)

// dropForeignBoot forgets endpoints of an earlier boot: namespaces and processes did not survive it. Their addresses go
// into quarantine when the pools start, since nobody adopts them.
func (a *Agent) dropForeignBoot() {
	for id, e := range a.state.Endpoints {
		if e.BootID != a.boot {
			a.log.Info("endpoint did not survive the reboot", "network", e.Network, "endpoint", string(id), "name", e.Name)
			delete(a.state.Endpoints, id)
		}
	}
}

// reap detaches endpoints whose process has ended or whose namespace path leads elsewhere, and finishes detaches that
// were cut short.
func (a *Agent) reap(ctx context.Context) error {
	since := map[overlay.EndpointID]time.Time{}
	for wait(ctx, reapEvery) {
		a.mu.Lock()
		all := make([]overlay.LocalEndpoint, 0, len(a.state.Endpoints))
		for _, e := range a.state.Endpoints {
			all = append(all, e)
		}
		a.mu.Unlock()
		for _, e := range all {
			why := gone(e)
			if why == "" {
				delete(since, e.ID)
				continue
			}
			if _, ok := since[e.ID]; !ok {
				since[e.ID] = time.Now()
			}
			patience := endedFor
			if e.PID == 0 && !e.Leaving {
				patience = goneFor
			}
			if time.Since(since[e.ID]) < patience {
				continue
			}
			delete(since, e.ID)
			a.reapOne(ctx, e, why)
		}
	}
	return nil
}

func (a *Agent) reapOne(ctx context.Context, e overlay.LocalEndpoint, why string) {
	unlock, ok := a.attaching.lock(string(e.ID))
	if !ok {
		return // somebody is at it
	}
	defer unlock()
	a.mu.Lock()
	now, still := a.state.Endpoints[e.ID]
	a.mu.Unlock()
	if !still || gone(now) == "" {
		return
	}
	a.log.Info("endpoint's workload is gone", "network", e.Network, "endpoint", string(e.ID), "name", e.Name, "why", why)
	if err := a.detach(ctx, now); err != nil && ctx.Err() == nil {
		a.log.Warn("endpoint not detached, will retry", "endpoint", string(e.ID), "err", err)
	}
}

// gone says why an endpoint has no workload any more, empty when it has, or when that cannot be told.
func gone(e overlay.LocalEndpoint) string {
	if e.Leaving {
		return "its detach was cut short"
	}
	if e.PID != 0 {
		start, err := processStart(e.PID)
		if errors.Is(err, os.ErrNotExist) || err == nil && start != e.PIDStart {
			return "its process ended"
		}
		return ""
	}
	if e.SourcePath != "" {
		inode, err := netns.Inode(e.SourcePath)
		if errors.Is(err, os.ErrNotExist) || err == nil && inode != e.SourceInode {
			return "its namespace " + e.SourcePath + " is gone"
		}
	}
	return ""
}
