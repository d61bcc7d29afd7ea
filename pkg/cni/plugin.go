package cni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"weft/pkg/api"
	"weft/pkg/apiclient"
	"weft/pkg/cni/queue"
	"weft/pkg/overlay"
)

// Versions of the specification that the plugin speaks.
var Versions = version.PluginSupports("0.4.0", "1.0.0", "1.1.0")

// The clocks of DEL, wall time. Runtimes give a plugin some minutes; a DEL must not use them up, for what it cannot do
// now the agent does later.
const (
	delTimeout = 20 * time.Second
	busyEvery  = 50 * time.Millisecond // an ADD that was killed is being taken back by the agent
)

// Plugin answers the commands of the specification. Its methods may be called concurrently.
type Plugin struct {
	// Out is where results go: standard output.
	Out io.Writer
}

// Funcs is the plugin for skel.PluginMainFuncs.
func (p Plugin) Funcs(ctx context.Context) skel.CNIFuncs {
	bind := func(f func(context.Context, *skel.CmdArgs) error) func(*skel.CmdArgs) error {
		return func(a *skel.CmdArgs) error { return f(ctx, a) }
	}
	return skel.CNIFuncs{Add: bind(p.Add), Del: bind(p.Del), Check: bind(p.Check), GC: bind(p.GC), Status: bind(p.Status)}
}

// Add attaches a container. When it is killed the agent takes the endpoint back.
func (p Plugin) Add(ctx context.Context, cmd *skel.CmdArgs) error {
	c, err := parseConfig(cmd.StdinData)
	if err != nil {
		return err
	}
	a, err := parseArgs(cmd.Args)
	if err != nil {
		return err
	}
	prev, err := c.previous()
	if err != nil {
		return err
	}
	if prev != nil && has(prev, cmd.IfName, cmd.Netns) >= 0 {
		return types.NewError(CodeExists, fmt.Sprintf("weft: a plugin earlier in the chain has made interface %s already", cmd.IfName),
			"put weft-cni first in the list of plugins, or remove the other one")
	}
	spec, err := c.spec(a, cmd)
	if err != nil {
		return err
	}
	client := apiclient.New(c.settings.Socket)
	if err := drainFor(ctx, client, c.settings.Socket, overlay.EndpointID(spec.ID)); err != nil {
		return cniError("finish an earlier DEL of this container", err)
	}
	att, err := client.Attach(ctx, spec)
	if err != nil {
		e := cniError("attach container to network "+spec.Network, err)
		if _, serr := os.Stat(cmd.Netns); serr != nil && errors.Is(err, os.ErrNotExist) {
			e.Code = types.ErrInvalidNetNS
		}
		return e
	}
	if att.Warning != "" {
		fmt.Fprintln(os.Stderr, "weft-cni: warning:", att.Warning)
	}
	err = p.print(result(prev, att, cmd.IfName, cmd.Netns, c.settings.DNS != "none"), c.CNIVersion)
	if err != nil { // the runtime will never know of it
		return errors.Join(err, p.detach(context.WithoutCancel(ctx), client, c.settings.Socket, att.ID))
	}
	return nil
}

// spec is what a container's ADD asks the agent for.
func (c *config) spec(a args, cmd *skel.CmdArgs) (api.AttachSpec, error) {
	if !filepath.IsAbs(cmd.Netns) {
		return api.AttachSpec{}, types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("weft: CNI_NETNS is %q", cmd.Netns),
			"give the absolute path of a network namespace, as /run/netns/NAME")
	}
	address, err := c.address(a)
	if err != nil {
		return api.AttachSpec{}, err
	}
	n := c.names(a, cmd.ContainerID, cmd.IfName)
	return api.AttachSpec{
		Network: c.network(a), ID: string(endpointID(cmd.ContainerID, cmd.IfName)), Name: n.name, Services: n.services, Aliases: n.aliases,
		Address: address, MAC: c.mac(a), IfName: cmd.IfName, NetNS: cmd.Netns, Owner: c.owner(), Exclusive: true,
		HostRoute: c.settings.HostRoute,
	}, nil
}

func (p Plugin) print(r types.Result, version string) error {
	v, err := r.GetAsVersion(version)
	if err == nil {
		err = v.PrintTo(p.Out)
	}
	if err != nil {
		return types.NewError(types.ErrIOFailure, "weft: print the result: "+err.Error(), "")
	}
	return nil
}

// drainFor does the queued detaches when one of them is of this very endpoint.
func drainFor(ctx context.Context, client *apiclient.Client, socket string, id overlay.EndpointID) error {
	q := queue.Of(socket)
	if !q.Has(id) {
		return nil
	}
	_, err := q.Drain(func(id overlay.EndpointID) error { return client.Detach(ctx, string(id)) })
	if q.Has(id) {
		return err
	}
	return nil
}

// Del detaches a container: again, without its namespace, and also when no agent answers, for then the agent does it
// when it is back.
func (p Plugin) Del(ctx context.Context, cmd *skel.CmdArgs) error {
	c, err := looseConfig(cmd.StdinData)
	if err != nil {
		return err
	}
	return p.detach(ctx, apiclient.New(c.settings.Socket), c.settings.Socket, endpointID(cmd.ContainerID, cmd.IfName))
}

func (p Plugin) detach(ctx context.Context, client *apiclient.Client, socket string, id overlay.EndpointID) error {
	ctx, cancel := context.WithTimeout(ctx, delTimeout)
	defer cancel()
	err := client.Detach(ctx, string(id))
	for errors.Is(err, os.ErrExist) && wait(ctx, busyEvery) {
		err = client.Detach(ctx, string(id))
	}
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if qerr := queue.Of(socket).Add(id); qerr != nil {
		e := cniError("detach container", err)
		e.Code, e.Details = types.ErrTryAgainLater, qerr.Error()
		return e
	}
	fmt.Fprintf(os.Stderr, "weft-cni: the agent detaches %s when it can: %v\n", id, err)
	return nil
}

// wait sleeps for d, or until ctx ends: then it returns false.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Check compares a container's attachment with what ADD returned and with the kernel.
func (p Plugin) Check(ctx context.Context, cmd *skel.CmdArgs) error {
	c, err := parseConfig(cmd.StdinData)
	if err != nil {
		return err
	}
	prev, err := c.previous()
	if err != nil {
		return err
	}
	if prev == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "weft: CHECK needs prevResult", "the runtime must pass the result of ADD")
	}
	id := endpointID(cmd.ContainerID, cmd.IfName)
	ch, err := apiclient.New(c.settings.Socket).CheckEndpoint(ctx, string(id))
	if errors.Is(err, os.ErrNotExist) {
		return types.NewError(types.ErrUnknownContainer, fmt.Sprintf("weft: interface %s of container %s is not attached", cmd.IfName, cmd.ContainerID),
			"the runtime must call ADD again")
	}
	if err != nil {
		return cniError("check container", err)
	}
	problems := append(compare(prev, ch.Endpoint, cmd.IfName, cmd.Netns), ch.Problems...)
	if a, err := os.Stat(cmd.Netns); err == nil {
		if b, err := os.Stat(ch.Endpoint.NetNS); err == nil && !os.SameFile(a, b) {
			problems = append(problems, "CNI_NETNS is another namespace than the one attached")
		}
	}
	if len(problems) > 0 {
		return types.NewError(CodeDamaged, fmt.Sprintf("weft: endpoint %s on network %s is not as it must be: %s", id, ch.Endpoint.Network,
			strings.Join(problems, "; ")), "the agent mends what it can within seconds; see `weft status` and `weft plan`")
	}
	return nil
}

// GC detaches the endpoints of this network configuration that are not among its valid attachments.
func (p Plugin) GC(ctx context.Context, cmd *skel.CmdArgs) error {
	c, err := looseConfig(cmd.StdinData)
	if err != nil {
		return err
	}
	keep := map[overlay.EndpointID]bool{}
	for _, v := range c.ValidAttachments {
		keep[endpointID(v.ContainerID, v.IfName)] = true
	}
	client := apiclient.New(c.settings.Socket)
	all, err := client.Endpoints(ctx)
	if err != nil {
		return cniError("list endpoints", err)
	}
	var errs []error
	for _, e := range all {
		if e.Local && e.Owner == c.owner() && !keep[e.ID] {
			if err := p.detach(ctx, client, c.settings.Socket, e.ID); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return cniError("collect garbage", err)
	}
	return nil
}

// Status says whether an ADD could succeed.
func (p Plugin) Status(ctx context.Context, cmd *skel.CmdArgs) error {
	c, err := parseConfig(cmd.StdinData)
	if err != nil {
		return err
	}
	unable := func(format string, v ...any) error {
		return types.NewError(types.ErrPluginNotAvailable, "weft: "+fmt.Sprintf(format, v...), "see `weft status` on this host")
	}
	s, err := apiclient.New(c.settings.Socket).Status(ctx)
	switch {
	case errors.Is(err, os.ErrPermission):
		return cniError("ask the agent", err)
	case err != nil:
		return unable("%v", err)
	case !s.VTEP.IsValid():
		return unable("this node has not joined the cluster yet")
	}
	a, err := parseArgs(cmd.Args)
	if err != nil {
		return err
	}
	name := overlay.CanonicalName(c.network(a))
	for _, n := range s.Networks {
		if n.Name != name {
			continue
		}
		if n.State == "error" {
			return types.NewError(types.ErrLimitedConnectivity, fmt.Sprintf("weft: network %s: %s", n.Name, n.Error), "see `weft status` on this host")
		}
		return nil
	}
	if c.settings.Network != "" {
		return unable("there is no network %q: make it with `weft network create`", name)
	}
	return nil // the job says which, later
}
