package agent

import (
	"net/netip"

	"weft/pkg/api"
	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

// defaultRoute says whether the last pass gave an endpoint's namespace its default route through this endpoint.
func (a *Agent) defaultRoute(e overlay.LocalEndpoint) bool {
	want := a.loop.Status().Last.Want
	if want == nil {
		return false
	}
	entry, ok := want.Entries[kstate.Route{NS: e.NetNS, Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}.Key()]
	return ok && entry.Item.On() == e.IfName
}

// routable says why the host cannot have the route to an endpoint that it asks for.
func (a *Agent) routable(e overlay.LocalEndpoint, n overlay.Network) error {
	if !e.HostRoute {
		return nil
	}
	if n.Internal {
		return apiErr(api.Conflict, "network %s is internal: the host has no way to its endpoints; use another network, or attach without hostRoute", n.Name)
	}
	routes, err := a.kernel.HostRoutes()
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Contains(e.Address) {
			return apiErr(api.Conflict, "the host's own route %s holds %s: a host route would take that address from the host; choose another subnet, or attach without hostRoute", r, e.Address)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.state.Endpoints {
		if l.HostRoute && !l.Leaving && l.Address == e.Address && l.ID != e.ID {
			return apiErr(api.Conflict, "the host has a route to %s already, for endpoint %s on network %s: choose another address", e.Address, l.ID, l.Network)
		}
	}
	return nil
}
