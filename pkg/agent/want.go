package agent

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"weft/pkg/kernel"
	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/overlay"
	"weft/pkg/plan"
	"weft/pkg/reconcile"
)

// refresh makes the snapshot from the ledger, with a.mu held or before the agent runs.
func (a *Agent) refresh() {
	if a.ledger == nil {
		return
	}
	a.snap.Store(a.ledger.Snapshot(a.completeLocked()))
	a.setViewLocked()
}

// completeLocked reports whether absence may be believed: this node's own record is among the accepted ones, and they
// are either kept from before or were read from Consul once.
func (a *Agent) completeLocked() bool {
	if a.ledger == nil {
		return false
	}
	if _, ok := a.ledger.Get(nodePath(a.opt.Config.NodeName)); !ok {
		return false
	}
	return a.delivered["disk"] || a.delivered["nodes"] && a.delivered["networks"]
}

// want computes the wanted kernel state; nil while this node has no VTEP address yet.
func (a *Agent) want() (*kstate.State, []overlay.Problem) {
	a.mu.Lock()
	in := plan.Input{Self: a.selfLocked(), Snapshot: a.snap.Load()}
	in.Self.Carried, in.Leases = a.carried, a.leases
	for _, e := range a.state.Endpoints {
		in.Local = append(in.Local, e)
	}
	leaving := a.leaving
	a.mu.Unlock()
	if leaving {
		s := kstate.NewState()
		s.Prune[""] = true
		return s, nil
	}
	if in.Snapshot == nil || !in.Self.VTEP.IsValid() {
		return nil, nil
	}
	var problems []overlay.Problem
	in.Local, problems = present(in.Local)
	if hooks, err := a.kernel.ForwardHooks(context.Background()); err != nil {
		problems = append(problems, overlay.Problem{Subject: "egress", Message: err.Error()})
	} else {
		in.Self.ForwardHooks = hooks
	}
	s, more := plan.Compute(in)
	return s, append(problems, more...)
}

// present leaves out endpoints whose namespace reference is gone: nothing can be made for them.
func present(local []overlay.LocalEndpoint) (out []overlay.LocalEndpoint, problems []overlay.Problem) {
	for _, e := range local {
		switch ok, err := netns.Exists(e.NetNS); {
		case err != nil:
			problems = append(problems, overlay.Problem{Subject: e.Name, Message: err.Error()})
		case ok:
			out = append(out, e)
		case !e.Leaving:
			problems = append(problems, overlay.Problem{Subject: e.Name,
				Message: fmt.Sprintf("the namespace of endpoint %s (%s) is gone: detach it with `weft detach %s`", e.Name, e.NetNS, e.ID)})
		}
	}
	return out, problems
}

func (a *Agent) selfLocked() plan.Self {
	cfg := a.cfg.Load()
	s := plan.Self{Node: cfg.NodeName, VTEP: a.state.VTEP, Underlay: a.under.Addr, UnderlayMTU: a.under.MTU,
		VXLANPort: cfg.VXLAN.Port, Backend: a.backend.Name(), WireGuard: a.ring.public(a.state.Keys.Live, cfg.WireGuard.Ports), Preshared: a.ring.fingerprints(), WGPorts: cfg.WireGuard.Ports,
		Keepalive: int(cfg.WireGuard.Keepalive.Seconds()), EgressPool: cfg.Egress.Pool,
		Routers: map[overlay.NetworkID]overlay.Router{}, Legs: map[overlay.NetworkID]overlay.Leg{},
		IPv6: exists("/proc/sys/net/ipv6"), BridgeNetfilter: exists("/proc/sys/net/bridge")}
	for id, mac := range a.state.Routers {
		s.Routers[id] = overlay.Router{MAC: mac, Address: mac.LinkLocal()}
	}
	for id, i := range a.state.Legs {
		if l, ok := leg(cfg.Egress.Pool, i); ok {
			s.Legs[id] = l
		}
	}
	return s
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (a *Agent) observe(ctx context.Context, want *kstate.State) (*kstate.State, error) {
	var scope kernel.Scope
	for _, e := range want.Entries {
		if s, ok := e.Item.(kstate.Sysctl); ok {
			scope.Sysctls = append(scope.Sysctls, s)
		}
	}
	return a.kernel.Observe(ctx, scope)
}

// apply does one operation. A pass may have decided before an attach made its namespace, and seen it after: such a
// namespace is no stray.
func (a *Agent) apply(ctx context.Context, op kstate.Op) error {
	if s, ok := op.Item.(kstate.Sysctl); ok && s.NS == kstate.Host {
		a.log.Info("kernel parameter of the host set", "sysctl", s.Path, "value", s.Value)
	}
	if ns, ok := op.Item.(kstate.NetNS); ok && op.Verb == kstate.Remove && strings.HasPrefix(ns.Name, kstate.EndpointPrefix) {
		a.mu.Lock() // until it is removed: an attach may be about to make it
		defer a.mu.Unlock()
		for _, e := range a.state.Endpoints {
			if e.NetNS == ns.Name && !e.Leaving && !a.leaving {
				return nil
			}
		}
	}
	return a.kernel.Apply(ctx, op)
}

// after follows a pass: names are served where the data path stands, and what is wrong is kept for status.
func (a *Agent) after(ctx context.Context, r reconcile.Result) {
	problems := slices.Clone(r.Problems)
	if r.Err != nil {
		problems = append(problems, overlay.Problem{Subject: "kernel", Message: r.Err.Error() + "; nothing is changed until it can be read"})
	}
	for _, f := range r.Failed {
		if !f.Skipped {
			problems = append(problems, overlay.Problem{Subject: a.subject(f.Op.Group), Message: oneLine(f.Error())})
		}
	}
	problems = append(problems, a.names.sync(ctx, r)...)
	a.mu.Lock()
	a.trouble = problems
	a.mu.Unlock()
}

// subject names a group of the kernel state for people.
func (a *Agent) subject(group string) string {
	switch group {
	case "":
		return "host"
	case kstate.TransitGroup:
		return "wireguard"
	}
	if s := a.snap.Load(); s != nil {
		if n, ok := s.NetworkByID(overlay.NetworkID(group)); ok {
			return networkSubject(n.Name)
		}
	}
	return group
}

// networkSubject is how a problem names a network, here and in pkg/plan.
func networkSubject(name string) string { return "network " + name }

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
