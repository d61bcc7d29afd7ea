package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"weft/consul"
	"weft/pkg/overlay"
)

// catalogEvery is how often what stands in Consul's catalog is compared with what should, and the checks are repeated
// for their time to live. Wall clock.
const catalogEvery = consul.CheckTTL / 3

// registered is what an instance was last told to Consul as.
type registered struct {
	instance consul.Instance
	health   overlay.Health
	told     bool // its checks were
}

// catalogLoop keeps this node's services in Consul's catalog: level-triggered, like everything. Consul away is no
// trouble of the services: names do not come from the catalog.
func (a *Agent) catalogLoop(ctx context.Context) error {
	have := map[string]registered{}
	var read time.Time // have was compared with Consul; zero: it must be
	backoff := time.Second
	pause := time.Second
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.catalogKick:
		case <-time.After(pause):
		}
		a.mu.Lock()
		joined := a.joined
		a.mu.Unlock()
		if !joined {
			pause = time.Second
			continue
		}
		var err error
		if time.Since(read) >= catalogEvery {
			if err = a.readCatalog(ctx, have); err == nil {
				read = time.Now()
			}
		}
		if err == nil {
			err = a.syncCatalog(ctx, have)
		}
		if err != nil && ctx.Err() == nil {
			a.note("catalog", fmt.Sprintf("services are not all in Consul's catalog: %v; retrying", err))
			read, pause = time.Time{}, backoff
			backoff = min(backoff*2, time.Minute)
			continue
		}
		a.note("catalog", "")
		backoff, pause = time.Second, catalogEvery
	}
}

// readCatalog forgets what Consul does not have, and notes what it should not: an earlier life of this agent may have
// left it.
func (a *Agent) readCatalog(ctx context.Context, have map[string]registered) error {
	ids, err := a.consul.Instances(ctx, a.opt.Config.NodeName)
	if err != nil {
		return err
	}
	for id, r := range have {
		if !slices.Contains(ids, id) {
			delete(have, id)
			continue
		}
		r.told = false // repeats the checks
		have[id] = r
	}
	for _, id := range ids {
		if _, ok := have[id]; !ok {
			have[id] = registered{}
		}
	}
	return nil
}

func (a *Agent) syncCatalog(ctx context.Context, have map[string]registered) error {
	want, output := a.wantedInstances()
	var errs []error
	for id := range have {
		if _, ok := want[id]; ok {
			continue
		}
		if err := a.consul.DeregisterInstance(ctx, id); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(have, id)
	}
	for id, w := range want {
		h, ok := have[id]
		if !ok || h.instance != w.instance {
			if err := a.consul.RegisterInstance(ctx, w.instance); err != nil {
				errs = append(errs, err)
				continue
			}
			h = registered{instance: w.instance}
		}
		if !h.told || h.health != w.health {
			if err := a.tellChecks(ctx, w, output[id]); err != nil {
				delete(have, id)
				if !errors.Is(err, os.ErrNotExist) {
					errs = append(errs, err)
					continue
				}
				kick(a.catalogKick) // Consul has lost it: once more
				continue
			}
			h.health, h.told = w.health, true
		}
		have[id] = h
	}
	return errors.Join(errs...)
}

// tellChecks reports the checks of an instance.
func (a *Agent) tellChecks(ctx context.Context, w registered, output string) error {
	status, text := consul.Passing, "attached to "+w.instance.Network+" as "+w.instance.Endpoint
	if err := a.consul.UpdateInstance(ctx, w.instance, consul.CheckAttached, status, text); err != nil || !w.instance.Checked {
		return err
	}
	switch w.health {
	case overlay.HealthStarting:
		status = consul.Warning
	case overlay.HealthFailing:
		status = consul.Critical
	}
	return a.consul.UpdateInstance(ctx, w.instance, consul.CheckHealth, status, output)
}

// wantedInstances is what should stand in the catalog: every service of every endpoint that names lead to, by id.
func (a *Agent) wantedInstances() (want map[string]registered, output map[string]string) {
	want, output = map[string]registered{}, map[string]string{}
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.checkOutput {
		if _, ok := a.state.Endpoints[id]; !ok {
			delete(a.checkOutput, id)
		}
	}
	if a.leaving {
		return want, output
	}
	for _, e := range a.state.Endpoints {
		if e.Leaving || e.Health == overlay.HealthDraining {
			continue
		}
		for _, s := range e.Services {
			i := consul.Instance{Node: a.opt.Config.NodeName, Network: e.Network, Endpoint: e.Name, EndpointID: string(e.ID),
				Service: s, Address: e.Address, Checked: e.Check.Kind != ""}
			if len(e.Ports) > 0 {
				i.Port = e.Ports[0].Port
			} else {
				i.Port = e.Check.Port
			}
			want[i.ID()] = registered{instance: i, health: e.Health}
			output[i.ID()] = a.checkOutput[e.ID]
		}
	}
	return want, output
}

// clearCatalog takes all of this node's services out of the catalog.
func (a *Agent) clearCatalog(ctx context.Context) error {
	ids, err := a.consul.Instances(ctx, a.opt.Config.NodeName)
	errs := []error{err}
	for _, id := range ids {
		errs = append(errs, a.consul.DeregisterInstance(ctx, id))
	}
	return errors.Join(errs...)
}
