package agent

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"weft/consul"
	"weft/pkg/api"
	"weft/pkg/config"
)

// register makes this agent visible in Consul's catalog.
func (a *Agent) register(ctx context.Context) error {
	a.mu.Lock()
	vtep := a.state.VTEP
	a.mu.Unlock()
	cfg := a.cfg.Load()
	return a.consul.RegisterAgent(ctx, consul.AgentService{Node: cfg.NodeName, Address: a.under.Addr, Port: cfg.WireGuard.Ports[0],
		Version: a.opt.Version, Meta: map[string]string{"vtep": vtep.String(), "backend": a.backend.Name(),
			"vxlan-port": strconv.Itoa(int(cfg.VXLAN.Port)), "identity": a.identity.Public().Short()}})
}

// reportChecks tells Consul how this node is: on change, and often enough for the checks' time to live.
func (a *Agent) reportChecks(ctx context.Context) error {
	const every = 5 * time.Second
	type report struct {
		status consul.CheckStatus
		output string
	}
	last := map[string]report{}
	sent := map[string]time.Time{}
	for wait(ctx, every) {
		a.mu.Lock()
		joined := a.joined
		a.mu.Unlock()
		if !joined {
			continue
		}
		data, mesh := a.health(ctx)
		for check, out := range map[string][]string{consul.CheckDataPath: data, consul.CheckMesh: mesh} {
			r := report{consul.CheckStatus(out[0]), out[1]}
			if last[check] == r && time.Since(sent[check]) < consul.CheckTTL/3 {
				continue
			}
			if err := a.consul.UpdateCheck(ctx, check, r.status, r.output); err != nil {
				a.log.Debug("check not reported", "check", check, "err", err)
				continue
			}
			last[check] = r
			sent[check] = time.Now()
		}
	}
	return nil
}

// health is the state and one readable line for each of the two checks.
func (a *Agent) health(ctx context.Context) (data, mesh []string) {
	st, err := a.Status(ctx)
	if err != nil {
		return []string{string(consul.Critical), err.Error()}, []string{string(consul.Warning), err.Error()}
	}
	up := 0
	var down []string
	for _, p := range st.Peers {
		if p.Up {
			up++
		} else {
			down = append(down, p.Node)
		}
	}
	mesh = []string{string(consul.Passing), fmt.Sprintf("%d of %d peers have a live WireGuard session (%s)", up, len(st.Peers), st.Backend)}
	if len(down) > 0 {
		mesh[0], mesh[1] = string(consul.Warning), mesh[1]+"; none with "+strings.Join(down, ", ")
	}
	var problems []api.Problem
	for _, p := range st.Problems {
		if strings.HasPrefix(p.Subject, "peer ") {
			mesh[0], mesh[1] = string(consul.Warning), mesh[1]+"; "+p.Subject+": "+p.Message
		} else {
			problems = append(problems, p)
		}
	}
	networks := 0
	for _, n := range st.Networks {
		if n.Local > 0 {
			networks++
		}
	}
	data = []string{string(consul.Passing), fmt.Sprintf("%d networks here, the kernel is as wanted", networks)}
	if len(problems) > 0 {
		p := problems[0]
		data = []string{string(consul.Warning), fmt.Sprintf("%d problems, first: %s: %s", len(problems), p.Subject, p.Message)}
	}
	return data, mesh
}

// reload puts new settings to use as they come; what needs a restart is logged.
func (a *Agent) reload(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case next := <-a.opt.Reload:
			a.applyConfig(next)
		}
	}
}

func (a *Agent) applyConfig(next config.Config) {
	cur := *a.cfg.Load()
	live, restart := config.Diff(cur, next)
	for _, c := range restart {
		a.log.Warn("setting changes only with a restart", "key", c.Key, "now", c.Old, "new", c.New)
	}
	if len(live) == 0 {
		return
	}
	for _, c := range live {
		a.log.Info("setting changed", "key", c.Key, "from", c.Old, "to", c.New)
	}
	merged := cur
	merged.Log, merged.DNS.Upstreams, merged.Pools, merged.PoolSize = next.Log, next.DNS.Upstreams, next.Pools, next.PoolSize
	merged.WireGuard.Keepalive, merged.WireGuard.RotateEvery, merged.IPAM = next.WireGuard.Keepalive, next.WireGuard.RotateEvery, next.IPAM
	a.cfg.Store(&merged)
	if a.opt.Level != nil {
		a.opt.Level.Set(next.Log.Level)
	}
	a.loop.Kick()
}
