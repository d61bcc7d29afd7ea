package apiservertest

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"weft/pkg/api"
	"weft/pkg/apiserver"
	"weft/pkg/overlay"
)

// Endpoints implements apiserver.Endpoints.
func (b *Backend) Endpoints(ctx context.Context) ([]api.Endpoint, error) {
	if err := b.enter(ctx, "Endpoints"); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.endpoints), nil
}

// Endpoint implements apiserver.Endpoints.
func (b *Backend) Endpoint(ctx context.Context, ref string) (api.Endpoint, error) {
	if err := b.enter(ctx, "Endpoint"); err != nil {
		return api.Endpoint{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := b.endpoint(ref); i >= 0 {
		return b.endpoints[i], nil
	}
	return api.Endpoint{}, api.Errorf(api.NotFound, "no endpoint %q", ref)
}

func (b *Backend) endpoint(ref string) int {
	return slices.IndexFunc(b.endpoints, func(e api.Endpoint) bool { return string(e.ID) == ref || e.Name == ref })
}

// Attach implements apiserver.Endpoints: addresses count up from the gateway's.
func (b *Backend) Attach(ctx context.Context, spec api.AttachSpec, peer apiserver.Peer) (api.Attachment, error) {
	if err := b.enter(ctx, "Attach"); err != nil {
		return api.Attachment{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.network(spec.Network)
	if i < 0 {
		return api.Attachment{}, api.Errorf(api.NotFound, "no network %q: see weft network ls", spec.Network)
	}
	n := b.networks[i]
	if i := b.endpoint(spec.ID); i >= 0 && spec.Exclusive {
		return api.Attachment{}, api.Errorf(api.Conflict, "endpoint %s exists already on network %s", spec.ID, b.endpoints[i].Network)
	}
	b.counter++
	id := cmp.Or(spec.ID, fmt.Sprintf("%012x", b.counter))
	addr := n.Gateway
	for range b.counter {
		addr = addr.Next()
	}
	a := api.Attachment{
		ID: overlay.EndpointID(id), Name: cmp.Or(spec.Name, id), Network: n.Name,
		Address: netip.PrefixFrom(addr, n.Subnets[0].Bits()), MAC: fmt.Sprintf("02:00:00:00:00:%02x", b.counter),
		MTU: n.MTU, Gateway: n.Gateway, DNS: []netip.Addr{n.Gateway}, DefaultRoute: !n.Internal,
		NetNS: cmp.Or(spec.NetNS, "/run/netns/absent-"+id),
	}
	if spec.NewNetNS && b.NewNetNS != nil {
		var err error
		if a.NetNS, err = b.NewNetNS(id); err != nil {
			return api.Attachment{}, err
		}
	}
	service := ""
	if len(spec.Services) > 0 {
		service = spec.Services[0]
	}
	b.endpoints = append(b.endpoints, api.Endpoint{
		ID: a.ID, Name: a.Name, Network: n.Name, Node: "n1", Address: addr, MAC: a.MAC, Service: service,
		Services: spec.Services, Local: true, NetNS: a.NetNS, DNS: a.DNS, PID: spec.PID, State: "up", Owner: spec.Owner,
		IfName: cmp.Or(spec.IfName, "eth0"),
	})
	if b.peers == nil {
		b.peers = map[string]apiserver.Peer{}
	}
	b.peers[id] = peer
	return a, nil
}

// PeerOf is who attached an endpoint that was attached since the start.
func (b *Backend) PeerOf(id string) apiserver.Peer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peers[id]
}

// Detach implements apiserver.Endpoints.
func (b *Backend) Detach(ctx context.Context, ref string) error {
	if err := b.enter(ctx, "Detach"); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.endpoint(ref)
	if i < 0 {
		return api.Errorf(api.NotFound, "no endpoint %q", ref)
	}
	if b.DropNetNS != nil {
		b.DropNetNS(string(b.endpoints[i].ID))
	}
	b.endpoints = slices.Delete(b.endpoints, i, i+1)
	return nil
}

// CheckEndpoint implements apiserver.Checks: the problems are those in Broken.
func (b *Backend) CheckEndpoint(ctx context.Context, ref string) (api.Check, error) {
	e, err := b.Endpoint(ctx, ref)
	return api.Check{Endpoint: e, Problems: b.Broken}, err
}

// SetProcess implements apiserver.Processes.
func (b *Backend) SetProcess(ctx context.Context, ref string, p api.Process) error {
	if err := b.enter(ctx, "SetProcess"); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.endpoint(ref)
	if i < 0 {
		return api.Errorf(api.NotFound, "no endpoint %q", ref)
	}
	b.endpoints[i].PID = p.PID
	return nil
}
