package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"weft/pkg/api"
	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/overlay"
	"weft/pkg/plan"
)

func (a *Agent) attachment(e overlay.LocalEndpoint, n overlay.Network, warning string) api.Attachment {
	return api.Attachment{ID: e.ID, Name: e.Name, Network: n.Name, Address: netip.PrefixFrom(e.Address, n.Subnet().Bits()),
		MAC: e.MAC.String(), MTU: n.MTU, Gateway: n.Gateway, DNS: []netip.Addr{n.Gateway}, NetNS: netns.Path(e.NetNS), DefaultRoute: a.defaultRoute(e), Warning: warning}
}

// intent checks a request and makes it a local endpoint without an address.
func (a *Agent) intent(ctx context.Context, spec api.AttachSpec) (overlay.LocalEndpoint, overlay.Network, error) {
	e := overlay.LocalEndpoint{IfName: spec.IfName, BootID: a.boot}
	n, err := a.network(spec.Network)
	if err != nil {
		return e, n, err
	}
	if err := a.usable(n); err != nil {
		return e, n, err
	}
	e.Network, e.NetworkID = n.Name, n.ID
	e.ID, e.Name = overlay.EndpointID(spec.ID), spec.Name
	if e.ID == "" {
		e.ID = overlay.NewEndpointID()
	}
	if err := e.ID.Validate(); err != nil {
		return e, n, apiErr(api.Invalid, "%v", err)
	}
	e.Services, e.Aliases, e.Owner, e.HostRoute = spec.Services, spec.Aliases, spec.Owner, spec.HostRoute
	if e.Name == "" {
		e.Name = defaultName(e.ID, e.Services)
	}
	for kind, names := range map[string][]string{"endpoint": {e.Name}, "service": e.Services, "alias": e.Aliases} {
		for i, name := range names {
			if err := overlay.ValidateName(kind, name); err != nil {
				return e, n, apiErr(api.Invalid, "%v", err)
			}
			names[i] = overlay.CanonicalName(name)
		}
	}
	e.Name = overlay.CanonicalName(e.Name)
	if e.IfName == "" {
		e.IfName = "eth0"
	}
	if len(e.IfName) > 15 || strings.ContainsAny(e.IfName, "/ :%\t\n") || e.IfName == "." || e.IfName == ".." {
		return e, n, apiErr(api.Invalid, "interface name %q is not one the kernel takes: at most 15 characters, no slash, colon or space", e.IfName)
	}
	if e.MAC = overlay.NewMAC(); spec.MAC != "" {
		if e.MAC, err = overlay.ParseMAC(spec.MAC); err == nil {
			err = e.MAC.Validate()
		}
		if err != nil {
			return e, n, apiErr(api.Invalid, "%v", err)
		}
	}
	e.NetNS = kstate.EndpointNS(e.ID)
	check := e.Endpoint
	check.Address = n.Gateway.Next() // which one it gets is not known yet
	if err := check.Validate(); err != nil {
		return e, n, apiErr(api.Invalid, "%v", err)
	}
	return e, n, a.source(&e, spec)
}

// defaultName is a name that follows from the id, within what a name may be: ids may be longer and hold colons.
func defaultName(id overlay.EndpointID, services []string) string {
	s := strings.Trim(strings.Map(func(r rune) rune {
		if r == ':' || r == '_' {
			return '-'
		}
		return r
	}, strings.ToLower(string(id))), "-.")
	if len(services) > 0 {
		return services[0][:min(len(services[0]), overlay.MaxName-7)] + "-" + strings.Trim(s[:min(6, len(s))], "-.")
	}
	return strings.Trim(s[:min(overlay.MaxName, len(s))], "-.")
}

// source finds the namespace that a request names.
func (a *Agent) source(e *overlay.LocalEndpoint, spec api.AttachSpec) error {
	given := 0
	for _, is := range []bool{spec.NetNS != "", spec.PID != 0, spec.NewNetNS} {
		if is {
			given++
		}
	}
	if given != 1 {
		return apiErr(api.Invalid, "name the namespace to attach: exactly one of a path (--netns) and a process (--pid)")
	}
	if spec.NewNetNS {
		return nil
	}
	e.SourcePath = spec.NetNS
	if spec.PID != 0 {
		start, err := processStart(spec.PID)
		if err != nil {
			return apiErr(api.NotFound, "process %d does not run on this host: give the pid of a running process", spec.PID)
		}
		e.PID, e.PIDStart, e.SourcePath = spec.PID, start, fmt.Sprintf("/proc/%d/ns/net", spec.PID)
	}
	inode, err := netns.Inode(e.SourcePath)
	if err != nil {
		return apiErr(api.NotFound, "namespace %s: %v: give the path of a network namespace, as /run/netns/NAME", e.SourcePath, err)
	}
	if host, err := netns.Inode("/proc/self/ns/net"); err == nil && host == inode {
		return apiErr(api.Invalid, "namespace %s is the host's own: an endpoint needs a namespace of its own", e.SourcePath)
	}
	if own, err := ownNamespace(inode); err != nil || own != "" {
		return errors.Join(err, apiErr(api.Invalid, "namespace %s is weft's own (%s): an endpoint needs a namespace of its own", e.SourcePath, own))
	}
	e.SourceInode = inode
	return nil
}

// repeat answers a repeated attach once the data path stands: the agent may just have started.
func (a *Agent) repeat(ctx context.Context, e overlay.LocalEndpoint, n overlay.Network) (api.Attachment, error) {
	ctx, cancel := context.WithTimeout(ctx, passWait)
	defer cancel()
	r, err := a.loop.Do(ctx)
	if err == nil {
		err = failure(r, e)
	}
	if err != nil {
		return api.Attachment{}, apiErr(api.Unavailable, "the data path of network %s does not stand yet: %s", n.Name, oneLine(err.Error()))
	}
	return a.attachment(e, n, ""), nil
}

// again finds the endpoint that a repeated attach means: the same id, network and namespace. Runtimes repeat themselves.
func (a *Agent) again(e overlay.LocalEndpoint) (overlay.LocalEndpoint, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old, ok := a.state.Endpoints[e.ID]
	same := ok && old.NetworkID == e.NetworkID && old.SourceInode == e.SourceInode && e.SourceInode != 0 && old.IfName == e.IfName
	return old, same && !old.Leaving && !a.leaving
}

// ownNamespace names the namespace of weft's own data path that has an inode, "" for none.
func ownNamespace(inode uint64) (string, error) {
	names, err := netns.Names()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if name != kstate.Transit && !strings.HasPrefix(name, kstate.NetworkPrefix) {
			continue
		}
		if i, err := netns.Inode(netns.Path(name)); err == nil && i == inode {
			return name, nil
		}
	}
	return "", nil
}

// free checks that neither the id nor the name is in use.
func (a *Agent) free(e overlay.LocalEndpoint) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.freeLocked(e)
}

func (a *Agent) freeLocked(e overlay.LocalEndpoint) error {
	if a.leaving || a.goodbye {
		return apiErr(api.Unavailable, "this node is leaving")
	}
	if old, ok := a.state.Endpoints[e.ID]; ok {
		return apiErr(api.Conflict, "endpoint %s exists already on network %s: choose another --id, or run `weft detach %s` first", e.ID, old.Network, e.ID)
	}
	for _, l := range a.state.Endpoints {
		if l.SourceInode == e.SourceInode && e.SourceInode != 0 && l.IfName == e.IfName {
			return apiErr(api.Conflict, "interface %s of that namespace is endpoint %s on network %s: choose another interface name, or run `weft detach %s` first", e.IfName, l.ID, l.Network, l.ID)
		}
		if l.NetworkID == e.NetworkID && l.MAC == e.MAC {
			return apiErr(api.Conflict, "MAC address %s is taken on network %s by endpoint %s on this node: choose another", e.MAC, e.Network, l.ID)
		}
		if l.NetworkID == e.NetworkID && l.Name == e.Name {
			return apiErr(api.Conflict, "name %q is taken on network %s by endpoint %s on this node: choose another --name", e.Name, e.Network, l.ID)
		}
	}
	if s := a.snap.Load(); s != nil {
		for _, set := range s.On(e.NetworkID) {
			for _, r := range set.Endpoints {
				if set.Node != a.opt.Config.NodeName && (r.Name == e.Name || r.ID == e.ID) {
					return apiErr(api.Conflict, "name %q or id %s is taken on network %s by endpoint %s on node %s: choose another", e.Name, e.ID, e.Network, r.Name, set.Node)
				}
				if set.Node != a.opt.Config.NodeName && r.MAC == e.MAC {
					return apiErr(api.Conflict, "MAC address %s is taken on network %s by endpoint %s on node %s: choose another", e.MAC, e.Network, r.Name, set.Node)
				}
			}
		}
	}
	return nil
}

// usable says why this node cannot be on a network.
func (a *Agent) usable(n overlay.Network) error {
	if mtu := plan.NetworkMTU(a.under.MTU, n.Encrypted); mtu < n.MTU {
		return apiErr(api.Conflict, "network %s has MTU %d, but the underlay %s (MTU %d) carries only %d: raise the MTU of %s, or use a network made with --mtu %d",
			n.Name, n.MTU, a.under.Iface, a.under.MTU, mtu, a.under.Iface, mtu)
	}
	if !n.Encrypted && !a.under.Addr.Is4() {
		return apiErr(api.Conflict, "network %s is plain and this node's underlay address %s is IPv6: plain networks need an IPv4 underlay; use an encrypted network", n.Name, a.under.Addr)
	}
	return nil
}

// freeLegLocked is the lowest leg number whose addresses are used neither by another leg nor by the host.
func (a *Agent) freeLegLocked() (int, error) {
	used := map[int]bool{}
	for _, i := range a.state.Legs {
		used[i] = true
	}
	pool := a.opt.Config.Egress.Pool
	routes, err := a.kernel.HostRoutes()
	if err != nil {
		return 0, err
	}
	for i := 0; ; i++ {
		l, ok := leg(pool, i)
		if !ok {
			return 0, apiErr(api.Exhausted, "no free egress leg in egress.pool %s (%d in use): set a larger pool", pool, len(used))
		}
		clash := false
		for _, r := range routes {
			clash = clash || r.Bits() > pool.Bits() && r.Contains(l.Host)
		}
		if !used[i] && !clash {
			return i, nil
		}
	}
}
