package apiservertest

import (
	"cmp"
	"context"
	"slices"

	"weft/pkg/api"
)

// Services implements apiserver.Names: one instance for each service of an endpoint.
func (b *Backend) Services(ctx context.Context) ([]api.Service, error) {
	if err := b.enter(ctx, "Services"); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []api.Service
	for _, e := range b.endpoints {
		for _, name := range e.Services {
			i := slices.IndexFunc(out, func(s api.Service) bool { return s.Name == name && s.Network == e.Network })
			if i < 0 {
				i = len(out)
				out = append(out, api.Service{Name: name, Network: e.Network, Nodes: 1})
			}
			out[i].Answered++
			out[i].Instances = append(out[i].Instances, api.Instance{Endpoint: e.Name, ID: e.ID, Node: e.Node, Address: e.Address,
				Ports: e.Ports, Answered: true})
		}
	}
	slices.SortFunc(out, func(x, y api.Service) int {
		return cmp.Or(cmp.Compare(x.Network, y.Network), cmp.Compare(x.Name, y.Name))
	})
	return out, nil
}

// Service implements apiserver.Names.
func (b *Backend) Service(ctx context.Context, network, name string) (api.Service, error) {
	all, err := b.Services(ctx)
	if err != nil {
		return api.Service{}, err
	}
	for _, s := range all {
		if s.Network == network && s.Name == name {
			return s, nil
		}
	}
	return api.Service{}, api.Errorf(api.NotFound, "no service %q on network %q", name, network)
}

// Drain implements apiserver.Names: without names to lose it detaches at once.
func (b *Backend) Drain(ctx context.Context, ref string, spec api.DrainSpec) error {
	if err := b.enter(ctx, "Drain"); err != nil {
		return err
	}
	if spec.Keep {
		_, err := b.Endpoint(ctx, ref)
		return err
	}
	return b.Detach(ctx, ref)
}

// QueryName implements apiserver.Names: addresses of services and endpoints.
func (b *Backend) QueryName(ctx context.Context, network, name, qtype string) (api.NameAnswer, error) {
	if err := b.enter(ctx, "QueryName"); err != nil {
		return api.NameAnswer{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	a := api.NameAnswer{Question: name + ".", Type: qtype, Rcode: "NXDOMAIN", Source: "records"}
	for _, e := range b.endpoints {
		if e.Network == network && (e.Name == name || slices.Contains(e.Services, name)) {
			a.Rcode = "NOERROR"
			a.Answer = append(a.Answer, name+". 5 IN A "+e.Address.String())
			a.Instances = append(a.Instances, api.NameInstance{Endpoint: e.Name, Network: network, Node: e.Node, Address: e.Address,
				Health: "no check", Answered: true})
		}
	}
	return a, nil
}
