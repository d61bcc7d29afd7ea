package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"weft/consul"
	"weft/pkg/api"
	"weft/pkg/apiserver"
	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/overlay"
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
	if old, ok := a.again(e); ok && !spec.Exclusive {
		return a.repeat(ctx, old, network)
	}
	if err := a.free(e); err != nil {
		return api.Attachment{}, err
	}
	p, err := a.poolFor(network)
	if err != nil {
		return api.Attachment{}, err
	}
	defer a.follow(network.Name)()
	a.awaitWatch(ctx, network.Name) // the others' endpoints are evidence of what is in use
	var want netip.Addr
	if spec.Address != "" {
		if want, err = netip.ParseAddr(spec.Address); err != nil {
			return api.Attachment{}, apiErr(api.Invalid, "address %q is not an IP address", spec.Address)
		}
	}
	if e.Address, err = a.allocate(ctx, p, e.ID, want); err != nil {
		return api.Attachment{}, poolErr(err)
	}
	warning, err := "", a.routable(e, network)
	if err == nil {
		warning, err = a.realise(ctx, e, network)
	}
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

// allocate leases an address. When Consul was wiped at this very moment it waits until the nodes have put back what they
// hold.
func (a *Agent) allocate(ctx context.Context, p *pool, id overlay.EndpointID, want netip.Addr) (netip.Addr, error) {
	for try := 0; ; try++ {
		if err := a.awaitHold(ctx); err != nil {
			return netip.Addr{}, err
		}
		addr, err := p.Allocate(ctx, id, want)
		if !errors.Is(err, consul.ErrUnreadable) || try == 3 || !wait(ctx, 500*time.Millisecond) {
			return addr, err
		}
	}
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
		if inode, ierr := netns.Inode(netns.Path(e.NetNS)); err == nil && (ierr != nil || inode != e.SourceInode) {
			err = errors.Join(ierr, fmt.Errorf("namespace %s changed while it was attached: try again", e.SourcePath))
		}
	}
	if err != nil {
		return "", apiErr(api.Invalid, "%v", err)
	}
	kick(a.watchKick)
	kick(a.publishKick) // the record is written while the data path is built
	pctx, cancel := context.WithTimeout(ctx, passWait)
	defer cancel()
	r, err := a.loop.Do(pctx)
	if err != nil {
		return "", apiErr(api.Unavailable, "the data path was not built: %v", err)
	}
	if err := failure(r, e); errors.Is(err, os.ErrExist) {
		return "", apiErr(api.Conflict, "the namespace has an interface %s already, which is not weft's: choose another name, or remove it", e.IfName)
	} else if err != nil {
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
	return errors.Join(err, a.takeDown(ctx, e), p.Release(e.ID, e.Address))
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
	e.Leaving = true
	a.state.Endpoints[e.ID] = e
	err := a.saveLocked()
	a.mu.Unlock()
	if err != nil {
		return err
	}
	p := a.poolOf(e)
	kick(a.publishKick)
	if err := a.takeDown(ctx, e); err != nil {
		return fmt.Errorf("detach endpoint %s: %w", e.ID, err)
	}
	if p != nil {
		if err := p.Release(e.ID, e.Address); err != nil {
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
	if !ok || e.Leaving {
		return apiErr(api.NotFound, "endpoint %q is being detached", ref)
	}
	e.PID, e.PIDStart = p.PID, start
	a.state.Endpoints[e.ID] = e
	return a.saveLocked()
}
