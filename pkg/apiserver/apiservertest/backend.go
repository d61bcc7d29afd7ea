package apiservertest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"weft/pkg/api"
	"weft/pkg/apiserver"
	"weft/pkg/overlay"
)

// Backend implements every interface of apiserver in memory, for one node named n1. The zero value works and is
// empty; all methods are safe for concurrent use. Fields are set before use.
type Backend struct {
	// Self is what Status returns.
	Self api.Status
	// Known is what Nodes returns.
	Known []api.Node
	// NewNetNS makes a namespace for an attach that asks for one and returns its path; DropNetNS removes it. Nil makes
	// none and gives a path that does not exist.
	NewNetNS  func(id string) (path string, err error)
	DropNetNS func(id string)
	// Broken is what a check of any endpoint finds.
	Broken []string
	// Hook, when set, runs before every call with its name; its error is the call's.
	Hook func(ctx context.Context, call string) error

	mu        sync.Mutex
	networks  []api.Network
	endpoints []api.Endpoint
	peers     map[string]apiserver.Peer
	counter   int
}

func (b *Backend) enter(ctx context.Context, call string) error {
	if b.Hook == nil {
		return nil
	}
	return b.Hook(ctx, call)
}

// Networks implements apiserver.Networks.
func (b *Backend) Networks(ctx context.Context) ([]api.Network, error) {
	if err := b.enter(ctx, "Networks"); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.networks), nil
}

// Network implements apiserver.Networks.
func (b *Backend) Network(ctx context.Context, name string) (api.Network, error) {
	if err := b.enter(ctx, "Network"); err != nil {
		return api.Network{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.network(name)
	if i < 0 {
		return api.Network{}, api.Errorf(api.NotFound, "no network %q", name)
	}
	n := b.networks[i]
	for _, e := range b.endpoints {
		if e.Network == name {
			n.Endpoints = append(n.Endpoints, e)
		}
	}
	n.EndpointCount = len(n.Endpoints)
	return n, nil
}

func (b *Backend) network(name string) int {
	return slices.IndexFunc(b.networks, func(n api.Network) bool { return n.Name == name })
}

// CreateNetwork implements apiserver.Networks.
func (b *Backend) CreateNetwork(ctx context.Context, spec api.NetworkSpec) (api.Network, error) {
	if err := b.enter(ctx, "CreateNetwork"); err != nil {
		return api.Network{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.network(spec.Name) >= 0 {
		return api.Network{}, api.Errorf(api.Conflict, "network %s exists", spec.Name)
	}
	subnet := netip.MustParsePrefix("10.0.0.0/24")
	if spec.Subnet != "" {
		var err error
		if subnet, err = netip.ParsePrefix(spec.Subnet); err != nil {
			return api.Network{}, api.Errorf(api.Invalid, "subnet %q is not a prefix such as 10.0.0.0/24", spec.Subnet)
		}
	}
	n := api.Network{
		Name: spec.Name, ID: overlay.NetworkID(fmt.Sprintf("%012x", len(b.networks)+1)), VNI: overlay.MinVNI,
		Subnets: []netip.Prefix{subnet}, Gateway: subnet.Addr().Next(), Encrypted: spec.Encrypted,
		Internal: spec.Internal, MTU: 1450, Labels: spec.Labels,
	}
	b.networks = append(b.networks, n)
	return n, nil
}

// RemoveNetwork implements apiserver.Networks.
func (b *Backend) RemoveNetwork(ctx context.Context, name string) error {
	if err := b.enter(ctx, "RemoveNetwork"); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.network(name)
	if i < 0 {
		return api.Errorf(api.NotFound, "no network %q", name)
	}
	var left []string
	for _, e := range b.endpoints {
		if e.Network == name {
			left = append(left, e.Name)
		}
	}
	if len(left) > 0 {
		return api.Errorf(api.Conflict, "network %s has endpoints: %s", name, strings.Join(left, ", "))
	}
	b.networks = slices.Delete(b.networks, i, i+1)
	return nil
}

// Nodes implements apiserver.Nodes.
func (b *Backend) Nodes(ctx context.Context) ([]api.Node, error) {
	return slices.Clone(b.Known), b.enter(ctx, "Nodes")
}

// Node implements apiserver.Nodes.
func (b *Backend) Node(ctx context.Context, name string) (api.Node, error) {
	if err := b.enter(ctx, "Node"); err != nil {
		return api.Node{}, err
	}
	for _, n := range b.Known {
		if n.Name == name {
			return n, nil
		}
	}
	return api.Node{}, api.Errorf(api.NotFound, "no node %q", name)
}

// RemoveNode implements apiserver.Nodes; it removes nothing.
func (b *Backend) RemoveNode(ctx context.Context, name string) error {
	_, err := b.Node(ctx, name)
	return err
}

// Status implements apiserver.System.
func (b *Backend) Status(ctx context.Context) (api.Status, error) {
	return b.Self, b.enter(ctx, "Status")
}

// Leave implements apiserver.System: refused while endpoints exist, unless forced.
func (b *Backend) Leave(ctx context.Context, spec api.LeaveSpec) error {
	if err := b.enter(ctx, "Leave"); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.endpoints) > 0 && !spec.Force {
		return api.Errorf(api.Conflict, "%d endpoints exist here: detach them or use --force", len(b.endpoints))
	}
	return nil
}

// Plan implements apiserver.System.
func (b *Backend) Plan(ctx context.Context) (string, error) {
	return "want\nhave\ndiff\n", b.enter(ctx, "Plan")
}

// Keys implements apiserver.Keys: one generation, never changing.
func (b *Backend) Keys(ctx context.Context) (api.KeyStatus, error) {
	return api.KeyStatus{Generation: 1}, b.enter(ctx, "Keys")
}

// RotateKeys implements apiserver.Keys: it is done at once.
func (b *Backend) RotateKeys(ctx context.Context) (api.KeyStatus, error) {
	return api.KeyStatus{Generation: 2}, b.enter(ctx, "RotateKeys")
}

// Trust implements apiserver.Trust: an open cluster.
func (b *Backend) Trust(ctx context.Context) (api.Trust, error) {
	return api.Trust{Mode: "open", Cluster: "c1"}, b.enter(ctx, "Trust")
}

// PutTrust implements apiserver.Trust; it keeps nothing.
func (b *Backend) PutTrust(ctx context.Context, _ api.TrustRecord) error {
	return b.enter(ctx, "PutTrust")
}

// ForgetNode implements apiserver.Trust; it forgets nothing.
func (b *Backend) ForgetNode(ctx context.Context, name string) error {
	_, err := b.Node(ctx, name)
	return err
}
