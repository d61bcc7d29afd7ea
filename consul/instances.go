package consul

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// Instances of services stand in Consul's catalog for Consul's own DNS, its UI and whoever asks it; weft's names do not
// need them. Each is registered with the Consul agent of its own host, which keeps it over its own restarts.

const (
	// CheckAttached says that the agent of an instance's node holds it; CheckHealth is what its health check says.
	CheckAttached = "weft:attached"
	CheckHealth   = "weft:health"
	// orphanAfter is when Consul removes an instance whose node's agent does not report any more: long after what an
	// upgrade takes.
	orphanAfter = 30 * time.Minute
	// metaNode marks the instances that an agent registered.
	metaNode = "weft-node"
)

// Instance is one endpoint of one service.
type Instance struct {
	Node, Network, Endpoint, EndpointID string
	Service                             string // without the catalog's prefix
	Address                             netip.Addr
	Port                                uint16 // 0: none
	// Checked says that it has a health check.
	Checked bool
}

// ID is the instance's id in the catalog. It does not begin as an agent's does.
func (i Instance) ID() string { return "weft:" + i.Node + ":" + i.EndpointID + ":" + i.Service }

// RegisterInstance registers an instance with the local Consul agent, replacing an earlier registration; the states of
// its checks survive that.
func (c *Client) RegisterInstance(ctx context.Context, i Instance) error {
	name := c.cfg.CatalogPrefix + i.Service
	check := func(kind, notes, orphan string) *api.AgentServiceCheck {
		return &api.AgentServiceCheck{CheckID: kind + ":" + i.ID(), Name: kind, Notes: notes, TTL: CheckTTL.String(),
			Status: api.HealthWarning, DeregisterCriticalServiceAfter: orphan}
	}
	checks := api.AgentServiceChecks{check(CheckAttached, "The weft agent of this node holds the endpoint. Critical when the agent has not reported for 3 minutes; "+
		"the endpoint keeps its network then.", orphanAfter.String())}
	if i.Checked {
		checks = append(checks, check(CheckHealth, "The endpoint's own health check, run by the weft agent of its node.", ""))
	}
	reg := &api.AgentServiceRegistration{ID: i.ID(), Name: name, Address: i.Address.String(), Port: int(i.Port),
		Tags: []string{i.Network}, Checks: checks,
		Meta: map[string]string{metaNode: i.Node, "node": i.Node, "endpoint": i.Endpoint, "network": i.Network, "endpoint-id": i.EndpointID}}
	return c.do(ctx, "register", "service "+reg.ID, fmt.Sprintf("service %q write", name), func(q *api.QueryOptions) error {
		return c.api.Agent().ServiceRegisterOpts(reg, api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(q.Context()))
	})
}

// UpdateInstance reports the state of one of an instance's checks (CheckAttached, CheckHealth); it must be repeated
// within CheckTTL. os.ErrNotExist when Consul has lost the registration.
func (c *Client) UpdateInstance(ctx context.Context, i Instance, check string, status CheckStatus, output string) error {
	id := url.PathEscape(check + ":" + i.ID())
	err := c.do(ctx, "update", "check "+check, fmt.Sprintf("service %q write", c.cfg.CatalogPrefix+i.Service), func(q *api.QueryOptions) error {
		return c.api.Agent().UpdateTTLOpts(id, output, string(status), q)
	})
	if e := (*Error)(nil); errors.As(err, &e) && unknownCheck(e.Said) {
		return fmt.Errorf("update check %s of %s: %w", check, i.ID(), os.ErrNotExist)
	}
	return err
}

// DeregisterInstance takes an instance out of the catalog by its id; success when it is not there.
func (c *Client) DeregisterInstance(ctx context.Context, id string) error {
	err := c.do(ctx, "deregister", "service "+id, "service write", func(q *api.QueryOptions) error {
		return c.api.Agent().ServiceDeregisterOpts(url.PathEscape(id), q)
	})
	if e := (*Error)(nil); errors.As(err, &e) && strings.Contains(strings.ToLower(e.Said), "unknown service") {
		return nil
	}
	return err
}

// Instances lists the ids of the instances that a node's agent registered with the local Consul agent, ordered.
func (c *Client) Instances(ctx context.Context, node string) (ids []string, err error) {
	var services map[string]*api.AgentService
	err = c.do(ctx, "list", "services of the agent", "service read", func(q *api.QueryOptions) (err error) {
		services, err = c.api.Agent().ServicesWithFilterOpts(fmt.Sprintf("Meta[%q] == %q", metaNode, node), q)
		return err
	})
	return slices.Sorted(maps.Keys(services)), err
}
