package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"weft/pkg/api"
	"weft/pkg/kstate"
	"weft/pkg/overlay"
	"weft/pkg/plan"
)

// peerUp is WireGuard's REJECT_AFTER_TIME (white paper section 6.1): a session older than that carries nothing.
const peerUp = 180 * time.Second

// Status implements apiserver.System. It answers also while Consul is away and when the kernel cannot be read: then
// that is the problem it shows.
func (a *Agent) Status(ctx context.Context) (api.Status, error) {
	cfg := a.cfg.Load()
	s := a.snap.Load()
	loop := a.loop.Status()
	st := api.Status{Node: cfg.NodeName, Version: a.opt.Version, Backend: a.backend.Name(), Underlay: a.under.Addr,
		Peers: []api.PeerStatus{}, Networks: []api.NetworkStatus{}, Problems: []api.Problem{},
		Reconcile: api.ReconcileStatus{Passes: loop.Passes, Applied: loop.Applied, Failed: loop.Failed, LastChange: loop.LastChange}}
	cs := a.consul.Status()
	st.Consul = api.ConsulStatus{Address: cfg.Consul.Address, OK: cs.OK}
	if !cs.OK && cs.LastError != nil {
		st.Consul.Error = oneLine(cs.LastError.Error())
	}
	a.mu.Lock()
	st.Cluster, st.Datacenter, st.VTEP = a.state.Cluster, a.state.Datacenter, a.state.VTEP
	local := map[overlay.NetworkID]int{}
	for _, e := range a.state.Endpoints {
		local[e.NetworkID]++
	}
	st.Keys = a.keyStatusLocked()
	for _, subject := range sortedNames(a.notes) {
		st.Problems = append(st.Problems, api.Problem{Subject: subject, Message: a.notes[subject]})
	}
	trouble := slices.Clone(a.trouble)
	for _, name := range sortedNames(a.pools) {
		trouble = append(trouble, a.pools[name].Problems()...)
	}
	if a.ledger != nil {
		st.Problems = append(st.Problems, a.refusedLocked()...)
	}
	a.mu.Unlock()
	for _, p := range trouble {
		st.Problems = append(st.Problems, api.Problem{Subject: p.Subject, Message: oneLine(p.Message)})
	}
	if s == nil || !s.Complete {
		st.Reconcile.Frozen = "the cluster's records were not all read yet, so nothing is removed"
	}
	a.peerStatus(ctx, &st, s)
	a.networkStatus(&st, s, local)
	egress := slices.ContainsFunc(st.Networks, func(n api.NetworkStatus) bool { return n.Local > 0 && !n.Internal })
	drops, err := a.kernel.Counters(ctx)
	if err != nil {
		st.Problems = append(st.Problems, api.Problem{Subject: "fences", Message: oneLine(err.Error())})
	}
	st.Drops = drops
	a.engineStatus(&st)
	if blocked, err := a.kernel.ForwardBlocked(ctx); err == nil && blocked != "" && egress {
		st.Problems = append(st.Problems, api.Problem{Subject: "egress", Message: fmt.Sprintf(
			"%s drops forwarded packets by its policy, so endpoints may not reach the outside: accept iifname and oifname \"%s*\" there", blocked, kstate.LegPrefix)})
	}
	return st, nil
}

// maxRefused is how many refused records of things that are not known status shows.
const maxRefused = 20

// refusedLocked are the records that are refused: all under paths where something is known, and some of the others.
func (a *Agent) refusedLocked() []api.Problem {
	rejected := a.ledger.Rejected()
	var known, unknown []api.Problem
	for _, path := range sortedNames(rejected) {
		p := api.Problem{Subject: path, Message: oneLine(rejected[path])}
		if a.ledger.Floor(path) > 0 {
			known = append(known, p)
		} else {
			unknown = append(unknown, p)
		}
	}
	if more := len(unknown) - maxRefused; more > 0 {
		unknown = append(unknown[:maxRefused], api.Problem{Subject: "records", Message: fmt.Sprintf("%d more are refused: somebody floods Consul; see the agent's log", more)})
	}
	return append(known, unknown...)
}

func (a *Agent) peerStatus(ctx context.Context, st *api.Status, s *overlay.Snapshot) {
	if s == nil || !st.VTEP.IsValid() {
		return
	}
	stats, err := a.kernel.PeerStats(ctx)
	if err != nil {
		st.Problems = append(st.Problems, api.Problem{Subject: "wireguard", Message: oneLine(err.Error())})
	}
	for _, name := range sortedNames(s.Nodes) {
		n := s.Nodes[name]
		if name == a.opt.Config.NodeName || !n.Present() {
			continue
		}
		p := api.PeerStatus{Node: name, VTEP: n.VTEP, HandshakeAgeSeconds: -1}
		for _, x := range stats {
			for _, k := range n.WireGuard {
				if x.PublicKey != k.PublicKey {
					continue
				}
				if carrier := st.Keys.Carried[name]; carrier == 0 || carrier == k.Generation {
					p.Endpoint = x.Endpoint.String()
				}
				p.RxBytes, p.TxBytes = p.RxBytes+int64(x.Rx), p.TxBytes+int64(x.Tx) // over both generations during a change
				if !x.LastHandshake.IsZero() {
					age := time.Since(x.LastHandshake)
					if s := age.Round(100 * time.Millisecond).Seconds(); p.HandshakeAgeSeconds < 0 || s < p.HandshakeAgeSeconds {
						p.HandshakeAgeSeconds, p.Up = s, age < peerUp
					}
				}
			}
		}
		a.mu.Lock()
		p.Path = string(a.paths[name])
		a.mu.Unlock()
		if m := pathProblem(path(p.Path), p.Up, a.under.MTU); m != "" {
			st.Problems = append(st.Problems, api.Problem{Subject: "peer " + name, Message: m})
		}
		st.Peers = append(st.Peers, p)
	}
}

// pathProblem says what is wrong with the way to a peer, empty for nothing.
func pathProblem(p path, up bool, mtu int) string {
	switch {
	case p == pathSmall:
		return fmt.Sprintf("small packets arrive, full-size ones do not: an underlay MTU on the way is below %d; raise it, or use networks made with a smaller --mtu", mtu)
	case p == pathSilent && up:
		return "its WireGuard session is live, but it does not answer through the mesh: look at `weft status` on that node"
	}
	return ""
}

func (a *Agent) networkStatus(st *api.Status, s *overlay.Snapshot, local map[overlay.NetworkID]int) {
	if s == nil {
		return
	}
	for _, n := range s.Networks {
		if !n.Alive() {
			continue
		}
		d := api.NetworkStatus{Name: n.Name, VNI: n.VNI, Encrypted: n.Encrypted, Internal: n.Internal, MTU: n.MTU,
			Local: local[n.ID], State: "idle"}
		for _, set := range s.On(n.ID) {
			if set.Node != st.Node {
				d.Remote += len(set.Endpoints)
			}
		}
		if d.Local > 0 {
			d.State = "up"
		}
		for _, p := range st.Problems {
			if p.Subject == networkSubject(n.Name) && d.Error == "" {
				d.State, d.Error = "error", p.Message
			}
		}
		st.Networks = append(st.Networks, d)
	}
	slices.SortFunc(st.Networks, func(x, y api.NetworkStatus) int { return cmp.Compare(x.Name, y.Name) })
}

// Plan implements apiserver.System: what is wanted, and how the kernel differs from it.
func (a *Agent) Plan(ctx context.Context) (string, error) {
	want, problems := a.want()
	if want == nil {
		return "", apiErr(api.Unavailable, "nothing can be decided yet: this node has not joined a cluster")
	}
	have, err := a.observe(ctx, want)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("# wanted\n" + want.String() + "\n# changes\n")
	ops := plan.Diff(want, have)
	for _, op := range ops {
		b.WriteString(op.String() + "\n")
	}
	if len(ops) == 0 {
		b.WriteString("none: the kernel is as wanted\n")
	}
	for _, p := range problems {
		fmt.Fprintf(&b, "# problem: %s: %s\n", p.Subject, p.Message)
	}
	return b.String(), nil
}
