package agent

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

// rejoinEvery and rejoinFor bound the attempts to bring this host's Consul agent back to its servers. Wall clock.
const (
	rejoinEvery = 500 * time.Millisecond
	rejoinFor   = 4 * time.Second // one attempt; a new one starts meanwhile, for a lost SYN is repeated ever more slowly
	// after rejoinBrisk of vain attempts they come every rejoinSlow: names do not wait for Consul (see exchange.go).
	rejoinBrisk = 2 * time.Minute
	rejoinSlow  = 5 * time.Second
)

// rejoin lets Consul find itself again soon: while its local agent answers but has no server, it is asked to join the
// members it knows. A token that may not do so ends it: then Consul needs as long as it needs.
func (a *Agent) rejoin(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	denied := make(chan struct{}, 1)
	pause := rejoinEvery
	since := time.Now()
	for wait(ctx, pause) {
		pause = rejoinEvery
		if !a.consulAway.Load() {
			since = time.Now()
			continue
		}
		if time.Since(since) > rejoinBrisk {
			pause = rejoinSlow
		}
		select {
		case <-denied:
			a.log.Info("this agent's token may not ask Consul to rejoin: after a partition Consul comes back at its own pace")
			return nil
		default:
		}
		wg.Go(func() {
			actx, cancel := context.WithTimeout(ctx, rejoinFor)
			defer cancel()
			if err := a.consul.Rejoin(actx); errors.Is(err, os.ErrPermission) {
				kick(denied)
			} else if err != nil && ctx.Err() == nil {
				a.log.Debug("consul does not rejoin yet", "err", err)
			}
		})
	}
	return nil
}
