package agent

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weft/dns"
	"weft/pkg/api"
	"weft/pkg/config"
	"weft/pkg/overlay"
)

// hostNetwork stands for the host's listener where a network is named.
const hostNetwork = "-"

// followFor is how long a network is followed after the host's listener was last asked about it. Wall clock.
const followFor = 10 * time.Minute

// drainFor is how long an endpoint outlives its names: so long may a resolver that was answered just before know them.
const drainFor = dns.TTL*time.Second + 500*time.Millisecond

// setViewLocked makes the name server answer from the newest snapshot, with a.mu held or before the agent runs.
func (a *Agent) setViewLocked() {
	cfg := a.cfg.Load()
	follows := map[string]bool{}
	for name, w := range a.watches {
		follows[name] = w.known
	}
	v := a.builder.Build(dns.Input{Snapshot: a.snap.Load(), Domain: cfg.DNS.Domain, Self: cfg.NodeName,
		PreferLocal: cfg.DNS.Prefer == config.PreferLocal, Dead: a.dead, Follows: follows})
	a.dns.SetView(v)
	for _, s := range v.Failing() {
		if !slices.Contains(a.failing, s) {
			a.log.Warn("all instances of a service fail their health check: all are answered", "service", s)
		}
	}
	for _, s := range a.failing {
		if !slices.Contains(v.Failing(), s) {
			a.log.Info("a service passes its health check again, or is gone", "service", s)
		}
	}
	a.failing = v.Failing()
}

// follow brings the endpoints of a network into the view that this node has none on: the host was asked about it.
func (a *Agent) follow(ctx context.Context, network string) {
	a.mu.Lock()
	a.hostAsked[network] = time.Now()
	a.mu.Unlock()
	kick(a.watchKick)
	a.awaitWatch(ctx, network)
}

// followedLocked are the networks whose endpoints this node needs to know.
func (a *Agent) followedLocked() map[string]bool {
	need := map[string]bool{}
	for _, e := range a.state.Endpoints {
		need[e.Network] = true
	}
	v, s := a.dns.View(), a.snap.Load()
	for name, at := range a.hostAsked {
		if asked := v.Asked(name); asked.After(at) {
			at = asked
		}
		n, ok := s.Networks[name]
		if time.Since(at) > followFor || !ok || !n.Alive() {
			delete(a.hostAsked, name)
			continue
		}
		need[name] = true
	}
	return need
}

// searchDomain is what resolv.conf's search line holds for a network's endpoints.
func (a *Agent) searchDomain(network string) []string {
	return []string{network + "." + a.cfg.Load().DNS.Domain}
}

// upstreams are the servers that names outside weft are asked of; never this host's own listener, which would be a loop.
func (a *Agent) upstreams() []netip.AddrPort {
	cfg := a.cfg.Load()
	if !slices.Contains(cfg.DNS.Upstreams, cfg.DNS.Listen) {
		return cfg.DNS.Upstreams
	}
	return slices.DeleteFunc(slices.Clone(cfg.DNS.Upstreams), func(u netip.AddrPort) bool { return u == cfg.DNS.Listen })
}

// Services implements apiserver.Names.
func (a *Agent) Services(ctx context.Context) ([]api.Service, error) {
	s, err := a.fresh(ctx, "")
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	dead := a.dead
	a.mu.Unlock()
	return services(s, dead), nil
}

// services groups a snapshot's endpoints. Which of them names lead to is decided as the name server does.
func services(s *overlay.Snapshot, dead map[string]bool) []api.Service {
	type key struct{ network, name string }
	all := map[key]*api.Service{}
	for _, n := range s.Networks {
		if !n.Alive() {
			continue
		}
		for _, set := range s.On(n.ID) {
			for _, e := range set.Endpoints {
				for _, name := range e.Services {
					k := key{n.Name, name}
					if all[k] == nil {
						all[k] = &api.Service{Name: name, Network: n.Name}
					}
					i := api.Instance{Endpoint: e.Name, ID: e.ID, Node: set.Node, Address: e.Address, Ports: e.Ports,
						Health: string(e.Health), Answered: e.Health.Answered()}
					if dead[set.Node] {
						i.Health, i.Answered = "node dead", false
					}
					all[k].Instances = append(all[k].Instances, i)
				}
			}
		}
	}
	out := make([]api.Service, 0, len(all))
	for _, svc := range all {
		finishService(svc)
		out = append(out, *svc)
	}
	slices.SortFunc(out, func(x, y api.Service) int {
		return cmp.Or(cmp.Compare(x.Network, y.Network), cmp.Compare(x.Name, y.Name))
	})
	return out
}

// finishService counts; when nobody passes, all that are there are answered.
func finishService(svc *api.Service) {
	nodes := map[string]bool{}
	for _, i := range svc.Instances {
		nodes[i.Node] = true
		if i.Answered {
			svc.Answered++
		}
	}
	svc.Nodes = len(nodes)
	if svc.Answered > 0 {
		return
	}
	for k := range svc.Instances {
		i := &svc.Instances[k]
		if i.Health != "node dead" && i.Health != string(overlay.HealthDraining) {
			i.Answered = true
			svc.Answered++
		}
	}
}

// Service implements apiserver.Names.
func (a *Agent) Service(ctx context.Context, network, name string) (api.Service, error) {
	all, err := a.Services(ctx)
	if err != nil {
		return api.Service{}, err
	}
	for _, s := range all {
		if s.Network == overlay.CanonicalName(network) && s.Name == overlay.CanonicalName(name) {
			return s, nil
		}
	}
	return api.Service{}, apiErr(api.NotFound, "no service is named %q on network %q: see `weft service ls`", name, network)
}

// QueryName implements apiserver.Names.
func (a *Agent) QueryName(ctx context.Context, network, name, qtype string) (api.NameAnswer, error) {
	l := dns.Listen{}
	if network != hostNetwork {
		n, err := a.network(network)
		if err != nil {
			return api.NameAnswer{}, err
		}
		a.mu.Lock()
		followed := a.watches[n.Name] != nil
		a.mu.Unlock()
		if !followed {
			a.follow(ctx, n.Name)
		}
		l = dns.Listen{Network: n.Name, Forward: !n.Internal}
	}
	x, err := a.dns.Explain(ctx, l, name, qtype)
	if err != nil {
		return api.NameAnswer{}, apiErr(api.Invalid, "%v", err)
	}
	out := api.NameAnswer{Question: x.Question, Type: x.Type, Rcode: x.Rcode, Answer: x.Answer, Authority: x.Authority,
		Additional: x.Additional, Source: x.Source, Why: x.Why}
	for _, i := range x.Instances {
		out.Instances = append(out.Instances, api.NameInstance{Endpoint: i.Name, Network: i.Network, Node: i.Node,
			Address: i.Address, Health: i.Health, Answered: i.Answered})
	}
	return out, nil
}

// Drain implements apiserver.Names: first the names, everywhere, and when nobody can know them any more the endpoint.
func (a *Agent) Drain(ctx context.Context, ref string, spec api.DrainSpec) error {
	e, err := a.local(ref)
	if err != nil {
		return err
	}
	if err := a.setHealth(e.ID, overlay.HealthDraining); err != nil {
		return err
	}
	a.log.Info("endpoint drained", "network", e.Network, "endpoint", string(e.ID), "name", e.Name)
	pctx, cancel := context.WithTimeout(ctx, publishWait)
	defer cancel()
	if err := a.awaitPublished(pctx, e.Network); err != nil {
		a.log.Warn("other nodes do not know yet that an endpoint is drained", "endpoint", string(e.ID), "err", err)
	}
	if spec.Keep {
		return nil
	}
	if !wait(ctx, drainFor) {
		return apiErr(api.Unavailable, "endpoint %s has no names any more, but is still attached: run `weft detach %s`", e.Name, e.ID)
	}
	if err := a.Detach(ctx, string(e.ID)); err != nil && api.FromError(err).Code != api.NotFound { // its process may have ended
		return err
	}
	return nil
}

// setHealth changes what is published of an endpoint. Once it is drained it stays so.
func (a *Agent) setHealth(id overlay.EndpointID, h overlay.Health) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.state.Endpoints[id]
	if !ok {
		return apiErr(api.NotFound, "endpoint %q is not on this node: see `weft endpoint ls`", string(id))
	}
	if e.Health == h || e.Health == overlay.HealthDraining {
		return nil
	}
	e.Health = h
	a.state.Endpoints[id] = e
	kick(a.publishKick)
	kick(a.catalogKick)
	return a.saveLocked()
}

// names checks and stores the names, ports and check that an attach asks for.
func askedNames(e *overlay.LocalEndpoint, spec api.AttachSpec) error {
	for _, alias := range spec.Aliases {
		e.Aliases = append(e.Aliases, strings.ToLower(alias))
	}
	for _, p := range spec.Ports {
		if p.Proto == "" {
			p.Proto = "tcp"
		}
		p.Name, p.Proto = strings.ToLower(p.Name), strings.ToLower(p.Proto)
		e.Ports = append(e.Ports, p)
	}
	if err := overlay.CheckNames(e.Aliases, e.Ports); err != nil {
		return apiErr(api.Invalid, "%v", err)
	}
	if spec.Check == nil {
		return nil
	}
	check, err := overlay.ParseCheck(spec.Check.Check, spec.Check.Interval, spec.Check.Timeout)
	if err != nil {
		return apiErr(api.Invalid, "%v", err)
	}
	if e.Check = check; check.Kind != "" {
		e.Health = overlay.HealthStarting
	}
	return nil
}
