package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"weft/consul"
	"weft/keys"
	"weft/pkg/api"
	"weft/pkg/ledger"
	"weft/pkg/netns"
	"weft/pkg/overlay"
)

func removedPath(node string) string { return "removed/" + node }

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func parseRevision(value []byte) uint64 {
	n, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil {
		return 0 // not a revision: nothing is newer than what is accepted
	}
	return n
}

// Endpoints implements apiserver.Endpoints.
func (a *Agent) Endpoints(ctx context.Context) ([]api.Endpoint, error) {
	out := []api.Endpoint{}
	s, err := a.fresh(ctx, "")
	if err != nil {
		return nil, err
	}
	seen := map[overlay.EndpointID]bool{}
	for _, n := range s.Networks {
		if !n.Alive() {
			continue
		}
		for _, set := range s.On(n.ID) {
			for _, e := range set.Endpoints {
				out = append(out, a.endpoint(set, e))
				seen[e.ID] = true
			}
		}
	}
	a.mu.Lock()
	for id, e := range a.state.Endpoints {
		if !seen[id] {
			out = append(out, a.localEndpoint(e))
		}
	}
	a.mu.Unlock()
	slices.SortFunc(out, func(x, y api.Endpoint) int {
		return cmp.Or(cmp.Compare(x.Network, y.Network), x.Address.Compare(y.Address), cmp.Compare(x.ID, y.ID))
	})
	return out, nil
}

// endpoint describes an endpoint of a published set; of a local one what only this node knows is added.
func (a *Agent) endpoint(set overlay.EndpointSet, e overlay.Endpoint) api.Endpoint {
	if set.Node == a.opt.Config.NodeName {
		a.mu.Lock()
		l, ok := a.state.Endpoints[e.ID]
		a.mu.Unlock()
		if ok {
			return a.localEndpoint(l)
		}
	}
	return describeEndpoint(e, set.Network, set.Node, "remote")
}

func describeEndpoint(e overlay.Endpoint, network, node, state string) api.Endpoint {
	d := api.Endpoint{ID: e.ID, Name: e.Name, Network: network, Node: node, Address: e.Address, MAC: e.MAC.String(),
		Services: e.Services, Aliases: e.Aliases, Ports: e.Ports, Health: string(e.Health), State: state}
	if len(e.Services) > 0 {
		d.Service = e.Services[0]
	}
	return d
}

func (a *Agent) localEndpoint(l overlay.LocalEndpoint) api.Endpoint {
	state := "up"
	switch there, err := netns.Exists(l.NetNS); {
	case l.Leaving:
		state = "leaving"
	case err != nil || !there:
		state = "pending"
	}
	d := describeEndpoint(l.Endpoint, l.Network, a.opt.Config.NodeName, state)
	d.Local, d.NetNS, d.PID, d.Owner, d.IfName, d.Search = true, netns.Path(l.NetNS), l.PID, l.Owner, l.IfName, a.searchDomain(l.Network)
	if s := a.snap.Load(); s != nil {
		if n, ok := s.NetworkByID(l.NetworkID); ok {
			d.DNS = append(d.DNS, n.Gateway)
		}
	}
	return d
}

// Endpoint implements apiserver.Endpoints.
func (a *Agent) Endpoint(ctx context.Context, ref string) (api.Endpoint, error) {
	all, err := a.Endpoints(ctx)
	if err != nil {
		return api.Endpoint{}, err
	}
	var found []api.Endpoint
	for _, e := range all {
		if string(e.ID) == ref {
			return e, nil
		}
		if e.Name == overlay.CanonicalName(ref) {
			found = append(found, e)
		}
	}
	switch len(found) {
	case 0:
		return api.Endpoint{}, apiErr(api.NotFound, "no endpoint is named %q: see `weft endpoint ls`", ref)
	case 1:
		return found[0], nil
	}
	return api.Endpoint{}, apiErr(api.Conflict, "name %q stands for %d endpoints: use the id, see `weft endpoint ls`", ref, len(found))
}

// maxUnknownNodes is how many nodes that are refused and were never known a list shows.
const maxUnknownNodes = 100

// Nodes implements apiserver.Nodes.
func (a *Agent) Nodes(ctx context.Context) ([]api.Node, error) {
	s, err := a.fresh(ctx, "")
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	rejected := a.ledger.Rejected()
	a.mu.Unlock()
	out := []api.Node{}
	for _, name := range sortedNames(s.Nodes) {
		n := s.Nodes[name]
		d := api.Node{Name: n.Name, Datacenter: n.Datacenter, VTEP: n.VTEP, Underlay: n.Underlay, UnderlayMTU: n.UnderlayMTU,
			Backend: n.Backend, Version: n.Version, Identity: n.Identity.String(), Self: n.Name == a.opt.Config.NodeName,
			Left: !n.Present(), Problem: rejected[nodePath(name)]}
		for _, k := range n.WireGuard {
			d.WireGuard = append(d.WireGuard, k.PublicKey.String())
		}
		for _, set := range s.Endpoints {
			if set.Node == name && n.Present() {
				d.Endpoints += len(set.Endpoints)
			}
		}
		out = append(out, d)
	}
	for _, path := range sortedNames(rejected) {
		reason := rejected[path]
		if name, err := consul.ParseNodePath(path); err == nil {
			if _, known := s.Nodes[name]; !known && len(out) < len(s.Nodes)+maxUnknownNodes {
				out = append(out, api.Node{Name: name, Problem: reason})
			}
		}
	}
	slices.SortFunc(out, func(x, y api.Node) int { return cmp.Compare(x.Name, y.Name) })
	return out, nil
}

// Node implements apiserver.Nodes.
func (a *Agent) Node(ctx context.Context, name string) (api.Node, error) {
	all, err := a.Nodes(ctx)
	if err != nil {
		return api.Node{}, err
	}
	for _, n := range all {
		if n.Name == overlay.CanonicalName(name) {
			return n, nil
		}
	}
	return api.Node{}, apiErr(api.NotFound, "no node is named %q: see `weft node ls`", name)
}

// RemoveNode implements apiserver.Nodes: this node's signed word that another one is gone. Its leases are freed.
func (a *Agent) RemoveNode(ctx context.Context, name string) error {
	name = overlay.CanonicalName(name)
	if name == a.opt.Config.NodeName {
		return apiErr(api.Invalid, "%s is this node: use `weft leave`", name)
	}
	n, err := a.Node(ctx, name)
	if err != nil {
		return err
	}
	if n.Identity == "" {
		return apiErr(api.Conflict, "the record of node %s is not accepted (%s): there is nothing to remove", name, n.Problem)
	}
	if err := a.checkDead(ctx, name); err != nil {
		return err
	}
	if err := a.publishRemoval(ctx, name); err != nil {
		return consulErr(err)
	}
	if err := a.adoptSignatures(ctx, name); err != nil {
		return consulErr(err)
	}
	freed, err := a.freeLeases(ctx, name)
	a.log.Info("node removed", "node", name, "leases", freed)
	return consulErr(err)
}

// checkDead refuses to remove a node that still answers through the mesh.
func (a *Agent) checkDead(ctx context.Context, name string) error {
	n := a.snap.Load().Nodes[name]
	if !n.Present() {
		return nil
	}
	alive, err := a.answers(ctx, n.VTEP)
	if err != nil {
		return err
	}
	if alive {
		return apiErr(api.Conflict, "node %s is alive, it answers through the mesh: run `weft leave` on it, or stop the host first", name)
	}
	return nil
}

func (a *Agent) publishRemoval(ctx context.Context, name string) error {
	path := removedPath(name)
	n := a.snap.Load().Nodes[name]
	a.mu.Lock()
	r := overlay.Removal{Node: name, Identity: n.Identity, NodeRevision: n.Revision, Removed: time.Now().UTC().Truncate(time.Second),
		Signer: a.opt.Config.NodeName, Revision: a.ledger.Revision(path) + 1}
	env := keys.Envelope{Kind: ledger.KindRemoval, Cluster: a.state.Cluster, Path: path}
	a.mu.Unlock()
	value, err := env.Seal(a.identity, r)
	if err != nil {
		return fmt.Errorf("sign the removal of node %s: %w", name, err)
	}
	if err := a.consul.Txn(ctx, consul.Set(path, value)); err != nil {
		return err
	}
	a.offer([]consul.Pair{{Path: path, Value: value}})
	return nil
}

// adoptSignatures signs the networks that the removed node signed last, so that nodes that come later, and never saw
// its record, can verify them.
func (a *Agent) adoptSignatures(ctx context.Context, name string) error {
	for _, n := range a.snap.Load().Networks {
		if n.Signer != name {
			continue
		}
		path := networkPath(n.Name)
		p, err := a.consul.Get(ctx, path)
		if err != nil {
			return err
		}
		a.mu.Lock()
		n.Signer, n.Revision = a.opt.Config.NodeName, a.ledger.Revision(path)+1
		env := keys.Envelope{Kind: ledger.KindNetwork, Cluster: a.state.Cluster, Path: path}
		a.mu.Unlock()
		value, err := env.Seal(a.identity, n)
		if err != nil {
			return fmt.Errorf("sign network %s: %w", n.Name, err)
		}
		if err := a.consul.Txn(ctx, consul.CAS(path, value, p.Version)); err != nil {
			return err
		}
		a.offer([]consul.Pair{{Path: path, Value: value}})
	}
	return nil
}
