package agent

import (
	"context"
	"time"

	"weft/pkg/cni/queue"
	"weft/pkg/overlay"
)

// replayEvery is the time between looks at the queue of detaches (wall time): one is put there only when its client
// could not reach an agent that was about to start, or too busy to answer.
const replayEvery = 2 * time.Second

// replayDetaches does the detaches that were asked for while no agent answered.
func (a *Agent) replayDetaches(ctx context.Context) error {
	q := queue.Of(a.opt.Config.Socket)
	last := ""
	for {
		n, err := q.Drain(func(id overlay.EndpointID) error { return a.Detach(ctx, string(id)) })
		if n > 0 {
			a.log.Info("queued detaches done", "count", n)
		}
		text := ""
		if err != nil && ctx.Err() == nil {
			text = oneLine(err.Error())
		}
		if text != "" && text != last {
			a.log.Warn("queued detaches not done, will retry", "err", text)
		}
		last = text
		if !wait(ctx, replayEvery) {
			return nil
		}
	}
}
