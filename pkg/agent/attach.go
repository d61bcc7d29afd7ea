package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"weft/pkg/api"
	"weft/pkg/apiserver"
	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/overlay"
	"weft/pkg/plan"
	"weft/pkg/reconcile"
)

// The attach path's clocks, wall time.
const (
	publishWait = 3 * time.Second  // an attach waits so long for Consul before it returns with a warning
	watchWait   = 2 * time.Second  // and so long for the other nodes' endpoints when it is the first here
	passWait    = 20 * time.Second // and so long for the data path
)

// Attach implements apiserver.Endpoints. What fails is undone: nothing half-made stays behind.
func (a *Agent) Attach(ctx context.Context, spec api.AttachSpec, peer apiserver.Peer) (api.Attachment, error) {
	e, network, err := a.intent(ctx, spec)
	if err != nil {
		return api.Attachment{}, err
	}
	if start, err := processStart(peer.PID); spec.NewNetNS && err == nil {
		e.PID, e.PIDStart = peer.PID, start // until SetProcess names the program: the endpoint must not outlive who asked for it
	}
	unlock, ok := a.attaching.lock(string(e.ID))
	if !ok {
		return api.Attachment{}, apiErr(api.Conflict, "endpoint %s is being attached or detached at this moment: try again", e.ID)
	}
	defer unlock()
	if old, ok := a.again(e); ok {
		return a.attachment(old, network, ""), nil
	}
	if err := a.free(e); err != nil {
		return api.Attachment{}, err
	}
	p, err := a.poolFor(network)
	if err != nil {
		return api.Attachment{}, err
	}
	var want netip.Addr
	if spec.Address != "" {
		if want, err = netip.ParseAddr(spec.Address); err != nil {
			return api.Attachment{}, apiErr(api.Invalid, "address %q is not an IP address", spec.Address)
		}
	}
	if e.Address, err = p.Allocate(ctx, e.ID, want); err != nil {
		return api.Attachment{}, poolErr(err)
	}
	warning, err := a.realise(ctx, e, network)
	if err != nil {
		undo := context.WithoutCancel(ctx)
		if uerr := a.undo(undo, e, p); uerr != nil {
			a.log.Warn("attach not undone completely", "endpoint", string(e.ID), "err", uerr)
		}
		return api.Attachment{}, err
	}
	a.log.Info("endpoint attached", "network", network.Name, "endpoint", string(e.ID), "name", e.Name, "address", e.Address.String())
	return a.attachment(e, network, warning), nil
}

func (a *Agent) attachment(e overlay.LocalEndpoint, n overlay.Network, warning string) api.Attachment {
	return api.Attachment{ID: e.ID, Name: e.Name, Network: n.Name, Address: netip.PrefixFrom(e.Address, n.Subnet().Bits()),
		MAC: e.MAC.String(), MTU: n.MTU, Gateway: n.Gateway, DNS: []netip.Addr{n.Gateway}, NetNS: netns.Path(e.NetNS), Search: a.searchDomain(n.Name), Warning: warning}
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
	e.Services = spec.Services
	if e.Name == "" {
		e.Name = defaultName(e.ID, e.Services)
	}
	for kind, names := range map[string][]string{"endpoint": {e.Name}, "service": e.Services} {
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
	if len(e.IfName) > 15 || strings.ContainsAny(e.IfName, "/ :\t\n") || e.IfName == "." || e.IfName == ".." {
		return e, n, apiErr(api.Invalid, "interface name %q is not one the kernel takes: at most 15 characters, no slash, colon or space", e.IfName)
	}
	if err := askedNames(&e, spec); err != nil {
		return e, n, err
	}
	e.MAC = overlay.NewMAC()
	e.NetNS = kstate.EndpointNS(e.ID)
	return e, n, a.source(&e, spec)
}

func defaultName(id overlay.EndpointID, services []string) string {
	if len(services) > 0 {
		s := string(id)
		return services[0] + "-" + strings.ToLower(s[:min(6, len(s))])
	}
	return string(id)
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
	e.SourceInode = inode
	return nil
}

// again finds the endpoint that a repeated attach means: the same id, network and namespace. Runtimes repeat themselves.
func (a *Agent) again(e overlay.LocalEndpoint) (overlay.LocalEndpoint, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old, ok := a.state.Endpoints[e.ID]
	same := ok && old.NetworkID == e.NetworkID && old.SourceInode == e.SourceInode && e.SourceInode != 0 && old.IfName == e.IfName
	return old, same && !old.Leaving && !a.leaving
}

// free checks that neither the id nor the name is in use.
func (a *Agent) free(e overlay.LocalEndpoint) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.freeLocked(e)
}

func (a *Agent) freeLocked(e overlay.LocalEndpoint) error {
	if a.leaving {
		return apiErr(api.Unavailable, "this node is leaving")
	}
	if old, ok := a.state.Endpoints[e.ID]; ok {
		return apiErr(api.Conflict, "endpoint %s exists already on network %s: choose another --id, or run `weft detach %s` first", e.ID, old.Network, e.ID)
	}
	for _, l := range a.state.Endpoints {
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

// realise makes the endpoint real: its namespace, the intent on disk, the data path, the record.
func (a *Agent) realise(ctx context.Context, e overlay.LocalEndpoint, n overlay.Network) (warning string, err error) {
	// The intent first: a namespace without one would be removed as a stray (see apply).
	if err := a.keep(e, n); err != nil {
		return "", err
	}
	if e.SourcePath == "" {
		err = netns.Create(e.NetNS)
	} else {
		err = netns.Bind(e.SourcePath, e.NetNS)
	}
	if err != nil {
		return "", apiErr(api.Invalid, "%v", err)
	}
	kick(a.watchKick)
	kick(a.catalogKick)
	kick(a.publishKick) // the record is written while the data path is built
	a.awaitWatch(ctx, n.Name)
	pctx, cancel := context.WithTimeout(ctx, passWait)
	defer cancel()
	r, err := a.loop.Do(pctx)
	if err != nil {
		return "", apiErr(api.Unavailable, "the data path was not built: %v", err)
	}
	if err := failure(r, e); err != nil {
		return "", apiErr(api.Internal, "the data path of network %s was not built: %s", n.Name, oneLine(err.Error()))
	}
	wctx, cancel2 := context.WithTimeout(ctx, publishWait)
	defer cancel2()
	if err := a.awaitPublished(wctx, n.Name); err != nil {
		warning = err.Error()
	}
	return warning, ctx.Err()
}

// keep writes the intent to disk with what the network needs on this node.
func (a *Agent) keep(e overlay.LocalEndpoint, n overlay.Network) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.freeLocked(e); err != nil { // once more: another attach may have taken the name meanwhile
		return err
	}
	if _, ok := a.state.Routers[n.ID]; !ok {
		a.state.Routers[n.ID] = overlay.NewMAC()
	}
	if _, ok := a.state.Legs[n.ID]; !ok && !n.Internal {
		i, err := a.freeLegLocked()
		if err != nil {
			return err
		}
		a.state.Legs[n.ID] = i
	}
	a.state.Endpoints[e.ID] = e
	return a.saveLocked()
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

// awaitWatch gives the other nodes' endpoints a moment to be known when this is the first endpoint here; with Consul
// away the attach goes on with what is known.
func (a *Agent) awaitWatch(ctx context.Context, network string) {
	ctx, cancel := context.WithTimeout(ctx, watchWait)
	defer cancel()
	for {
		a.mu.Lock()
		w, joined := a.watches[network], a.joined
		a.mu.Unlock()
		if !joined {
			return
		}
		if w == nil {
			if !wait(ctx, time.Millisecond) {
				return
			}
			continue
		}
		select {
		case <-w.ready:
		case <-ctx.Done():
		}
		return
	}
}

// failure is what a pass could not do for one endpoint.
func failure(r reconcile.Result, e overlay.LocalEndpoint) error {
	if r.Err != nil {
		return r.Err
	}
	if r.Want == nil {
		return errors.New("this node has not joined the cluster yet")
	}
	link := kstate.EndpointLink(e.ID)
	for _, f := range r.Failed {
		k := f.Op.Item.Key()
		mine := k.NS == e.NetNS || f.Op.Item.On() == link || k.Kind == "link" && k.Name == link
		if mine || f.Op.Group == string(e.NetworkID) && f.Op.Item.Stage() <= kstate.StageWireGuard {
			return f
		}
	}
	return nil
}

// undo takes back a failed attach.
func (a *Agent) undo(ctx context.Context, e overlay.LocalEndpoint, p *pool) error {
	a.mu.Lock()
	delete(a.state.Endpoints, e.ID)
	err := a.saveLocked()
	a.mu.Unlock()
	kick(a.publishKick)
	kick(a.watchKick)
	return errors.Join(err, a.takeDown(ctx, e), p.Release(ctx, e.Address))
}

// takeDown removes an endpoint's data path and weft's reference on its namespace.
func (a *Agent) takeDown(ctx context.Context, e overlay.LocalEndpoint) error {
	ctx, cancel := context.WithTimeout(ctx, passWait)
	defer cancel()
	_, err := a.loop.Do(ctx)
	if derr := netns.Delete(e.NetNS); derr != nil && !errors.Is(derr, os.ErrNotExist) {
		err = errors.Join(err, derr)
	}
	return err
}

// Detach implements apiserver.Endpoints: ref is the id or the name of an endpoint of this node.
func (a *Agent) Detach(ctx context.Context, ref string) error {
	e, err := a.local(ref)
	if err != nil {
		return err
	}
	unlock, ok := a.attaching.lock(string(e.ID))
	if !ok {
		return apiErr(api.Conflict, "endpoint %s is being attached or detached at this moment: try again", e.ID)
	}
	defer unlock()
	return a.detach(ctx, e)
}

func (a *Agent) detach(ctx context.Context, e overlay.LocalEndpoint) error {
	a.mu.Lock()
	if now, ok := a.state.Endpoints[e.ID]; ok {
		e = now // its health may have changed
	}
	e.Leaving = true
	a.state.Endpoints[e.ID] = e
	err := a.saveLocked()
	p := a.pools[e.Network]
	a.mu.Unlock()
	if err != nil {
		return err
	}
	kick(a.publishKick)
	kick(a.catalogKick)
	if err := a.takeDown(ctx, e); err != nil {
		return fmt.Errorf("detach endpoint %s: %w", e.ID, err)
	}
	if p != nil {
		if err := p.Release(ctx, e.Address); err != nil {
			a.log.Warn("address not released yet", "endpoint", string(e.ID), "address", e.Address.String(), "err", err)
		}
	}
	a.mu.Lock()
	delete(a.state.Endpoints, e.ID)
	err = a.saveLocked()
	a.mu.Unlock()
	kick(a.watchKick)
	a.log.Info("endpoint detached", "network", e.Network, "endpoint", string(e.ID), "name", e.Name)
	return err
}

// local finds an endpoint of this node by id or unique name.
func (a *Agent) local(ref string) (overlay.LocalEndpoint, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e, ok := a.state.Endpoints[overlay.EndpointID(ref)]; ok {
		return e, nil
	}
	var found []overlay.LocalEndpoint
	for _, e := range a.state.Endpoints {
		if e.Name == overlay.CanonicalName(ref) {
			found = append(found, e)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if s := a.snap.Load(); s != nil {
			for _, set := range s.Endpoints {
				for _, e := range set.Endpoints {
					if string(e.ID) == ref || e.Name == ref {
						return overlay.LocalEndpoint{}, apiErr(api.NotFound, "endpoint %q is on node %s: run the command there", ref, set.Node)
					}
				}
			}
		}
		return overlay.LocalEndpoint{}, apiErr(api.NotFound, "endpoint %q is not on this node: see `weft endpoint ls`", ref)
	}
	return overlay.LocalEndpoint{}, apiErr(api.Conflict, "name %q stands for %d endpoints on this node: use the id, see `weft endpoint ls`", ref, len(found))
}

// SetProcess implements apiserver.Processes.
func (a *Agent) SetProcess(ctx context.Context, ref string, p api.Process) error {
	e, err := a.local(ref)
	if err != nil {
		return err
	}
	start, err := processStart(p.PID)
	if err != nil {
		return apiErr(api.NotFound, "process %d does not run on this host", p.PID)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.state.Endpoints[e.ID]
	if !ok {
		return apiErr(api.NotFound, "endpoint %q is not on this node any more", ref)
	}
	e.PID, e.PIDStart = p.PID, start
	a.state.Endpoints[e.ID] = e
	return a.saveLocked()
}
