package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"weft/consul"
	"weft/keys"
	"weft/pkg/api"
	"weft/pkg/ipam"
	"weft/pkg/ledger"
	"weft/pkg/overlay"
)

// Networks implements apiserver.Networks.
func (a *Agent) Networks(ctx context.Context) ([]api.Network, error) {
	s, err := a.fresh(ctx, "")
	if err != nil {
		return nil, err
	}
	out := []api.Network{}
	for _, n := range s.Networks {
		if n.Alive() {
			out = append(out, a.describe(s, n))
		}
	}
	slices.SortFunc(out, func(x, y api.Network) int { return cmp.Compare(x.Name, y.Name) })
	return out, nil
}

// Network implements apiserver.Networks.
func (a *Agent) Network(ctx context.Context, name string) (api.Network, error) {
	if _, err := a.network(name); err != nil {
		return api.Network{}, err
	}
	s, err := a.fresh(ctx, overlay.CanonicalName(name))
	if err != nil {
		return api.Network{}, err
	}
	n, ok := s.Networks[overlay.CanonicalName(name)]
	if !ok || !n.Alive() {
		return api.Network{}, unknownNetwork(name, s)
	}
	d := a.describe(s, n)
	d.Endpoints = []api.Endpoint{}
	for _, set := range s.On(n.ID) {
		for _, e := range set.Endpoints {
			d.Endpoints = append(d.Endpoints, a.endpoint(set, e))
		}
	}
	return d, nil
}

func (a *Agent) describe(s *overlay.Snapshot, n overlay.Network) api.Network {
	d := api.Network{Name: n.Name, ID: n.ID, VNI: n.VNI, Subnets: n.Subnets, Gateway: n.Gateway, Encrypted: n.Encrypted,
		Internal: n.Internal, AllowOverlap: n.AllowOverlap, MTU: n.MTU, Labels: n.Labels, Created: n.Created}
	if n.IPRange.IsValid() {
		d.IPRange = n.IPRange.String()
	}
	for _, set := range s.On(n.ID) {
		d.Nodes++
		d.EndpointCount += len(set.Endpoints)
		d.Local = d.Local || set.Node == a.opt.Config.NodeName
	}
	a.mu.Lock()
	for _, p := range a.trouble {
		if p.Subject == networkSubject(n.Name) {
			d.Problems = append(d.Problems, p.Message)
		}
	}
	a.mu.Unlock()
	return d
}

// network finds a live network in what is known.
func (a *Agent) network(name string) (overlay.Network, error) {
	s := a.snap.Load()
	if s == nil || len(s.Networks) == 0 && !s.Complete {
		return overlay.Network{}, apiErr(api.Unavailable, "this node has not joined a cluster yet: see `weft status`")
	}
	n, ok := s.Networks[overlay.CanonicalName(name)]
	if !ok || !n.Alive() {
		return overlay.Network{}, unknownNetwork(name, s)
	}
	return n, nil
}

func unknownNetwork(name string, s *overlay.Snapshot) error {
	var known []string
	for _, n := range s.Networks {
		if n.Alive() {
			known = append(known, n.Name)
		}
	}
	slices.Sort(known)
	hint := fmt.Sprintf("make it with `weft network create %s`", name)
	if len(known) > 0 && len(known) <= 8 {
		hint = "there are " + strings.Join(known, ", ")
	}
	return apiErr(api.NotFound, "no network is named %q: %s", name, hint)
}

// fresh is the snapshot with the endpoint records of a network (all networks for "") read from Consul, also of those
// that this node has no endpoint on and therefore does not follow. With Consul away it is what is known.
func (a *Agent) fresh(ctx context.Context, network string) (*overlay.Snapshot, error) {
	s := a.snap.Load()
	if s == nil {
		return nil, apiErr(api.Unavailable, "this node has not joined a cluster yet: see `weft status`")
	}
	a.mu.Lock()
	joined := a.joined
	followed := a.watches[network] != nil
	a.mu.Unlock()
	if !joined || followed {
		return s, nil
	}
	names := []string{network}
	if network == "" {
		names = nil
		for _, n := range s.Networks {
			if n.Alive() {
				names = append(names, n.Name)
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for _, name := range names {
		if err := a.refreshEndpoints(ctx, name); err != nil {
			if errors.Is(err, consul.ErrUnavailable) {
				return s, nil
			}
			return nil, consulErr(err)
		}
	}
	return a.snap.Load(), nil
}

func (a *Agent) refreshEndpoints(ctx context.Context, network string) error {
	revs, err := a.consul.List(ctx, consul.RevsDir(network))
	if err != nil {
		return err
	}
	moved := map[string]uint64{}
	for _, p := range revs {
		if _, node, err := consul.ParseRevPath(p.Path); err == nil {
			moved[endpointsPath(node, network)] = parseRevision(p.Value)
		}
	}
	if !a.fetch(ctx, moved) {
		return &consul.Error{Op: "read", Key: consul.RevsDir(network), Kind: consul.ErrUnavailable, Cause: ctx.Err()}
	}
	return nil
}

// RemoveNetwork implements apiserver.Networks: a signed tombstone takes the record's place.
func (a *Agent) RemoveNetwork(ctx context.Context, name string) error {
	if _, err := a.network(name); err != nil {
		return err
	}
	name = overlay.CanonicalName(name)
	for try := 0; try < 10; try++ {
		err := a.tryRemove(ctx, name)
		if errors.Is(err, consul.ErrConflict) {
			continue
		}
		if err == nil {
			a.log.Info("network removed", "network", name)
		}
		return consulErr(err)
	}
	return apiErr(api.Conflict, "network %q changed while it was removed, 10 times: try again", name)
}

func (a *Agent) tryRemove(ctx context.Context, name string) error {
	p, err := a.consul.Get(ctx, networkPath(name))
	if err != nil {
		return err
	}
	a.offer([]consul.Pair{p})
	if err := a.refreshEndpoints(ctx, name); err != nil {
		return err
	}
	s := a.snap.Load()
	n := s.Networks[name]
	if !n.Alive() {
		return unknownNetwork(name, s)
	}
	if err := a.checkUnused(s, n); err != nil {
		return err
	}
	n.Deleted, n.Signer = time.Now().UTC().Truncate(time.Second), a.opt.Config.NodeName
	a.mu.Lock()
	n.Revision = a.ledger.Revision(networkPath(name)) + 1
	env := keys.Envelope{Kind: ledger.KindNetwork, Cluster: a.state.Cluster, Path: networkPath(name)}
	a.mu.Unlock()
	value, err := env.Seal(a.identity, n)
	if err != nil {
		return fmt.Errorf("sign the deletion of network %s: %w", name, err)
	}
	if err := a.consul.Txn(ctx, consul.CAS(networkPath(name), value, p.Version)); err != nil {
		return err
	}
	a.offer([]consul.Pair{{Path: networkPath(name), Value: value}})
	return a.dropLeases(ctx, n)
}

func (a *Agent) checkUnused(s *overlay.Snapshot, n overlay.Network) error {
	var used []string
	for _, set := range s.On(n.ID) {
		for _, e := range set.Endpoints {
			used = append(used, e.Name+" on "+set.Node)
		}
	}
	a.mu.Lock()
	for _, e := range a.state.Endpoints {
		if e.NetworkID == n.ID && !slices.Contains(used, e.Name+" on "+a.opt.Config.NodeName) {
			used = append(used, e.Name+" on "+a.opt.Config.NodeName)
		}
	}
	a.mu.Unlock()
	if len(used) == 0 {
		return nil
	}
	slices.Sort(used)
	more := ""
	if len(used) > 5 {
		more = fmt.Sprintf(" and %d more", len(used)-5)
		used = used[:5]
	}
	return apiErr(api.Conflict, "network %s has endpoints: %s%s: detach them first", n.Name, strings.Join(used, ", "), more)
}

// dropLeases frees all leases of a deleted network: nobody can use them any more.
func (a *Agent) dropLeases(ctx context.Context, n overlay.Network) error {
	a.dropPool(n.Name, n.ID)
	store := a.consul.Leases()
	leases, err := store.List(ctx, n.Name)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range leases {
		if l.NetworkID != "" && l.NetworkID != n.ID {
			continue
		}
		if err := store.Delete(ctx, n.Name, l); err != nil && !errors.Is(err, ipam.ErrConflict) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
