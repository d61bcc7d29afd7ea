package consul

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	// ServiceName is the catalog service that every weft agent is an instance of.
	ServiceName = "weft"
	// CheckDataPath and CheckMesh are the names of an agent's checks.
	CheckDataPath = "weft:data-path"
	CheckMesh     = "weft:mesh"
	// CheckTTL is how long a check stays as it is without an update: longer than an agent's upgrade takes.
	CheckTTL = 3 * time.Minute
)

// CheckStatus is the state of a check.
type CheckStatus string

// The states, in Consul's words.
const (
	Passing  CheckStatus = api.HealthPassing
	Warning  CheckStatus = api.HealthWarning
	Critical CheckStatus = api.HealthCritical
)

// AgentService describes this node's agent in the catalog.
type AgentService struct {
	Node string
	// Address and Port are where other nodes reach this one's mesh (WireGuard).
	Address netip.Addr
	Port    uint16
	Version string
	// Meta is shown beside the service; values up to 512 bytes. "node" and "version" are set from the fields above.
	Meta map[string]string
}

// ServiceID is the catalog id of a node's agent.
func ServiceID(node string) string { return "weft-" + node }

// checkID carries the node, so that several agents under one Consul agent do not take each other's checks.
func checkID(check, node string) string { return check + ":" + node }

// RegisterAgent registers service weft with the local Consul agent, replacing an earlier registration; the checks'
// states survive that. New checks are in state warning until their first UpdateCheck.
func (c *Client) RegisterAgent(ctx context.Context, s AgentService) error {
	meta := maps.Clone(s.Meta)
	if meta == nil {
		meta = map[string]string{}
	}
	meta["node"], meta["version"] = s.Node, s.Version
	check := func(name, notes string) *api.AgentServiceCheck {
		return &api.AgentServiceCheck{
			CheckID: checkID(name, s.Node), Name: name, Notes: notes, TTL: CheckTTL.String(), Status: api.HealthWarning,
		}
	}
	reg := &api.AgentServiceRegistration{
		ID: ServiceID(s.Node), Name: ServiceName, Address: s.Address.String(), Port: int(s.Port), Meta: meta,
		Checks: api.AgentServiceChecks{
			check(CheckDataPath, "The agent's last pass over this node's kernel state (bridges, VXLAN, firewall) found or made everything as it should be. "+
				"Critical also when the agent has not reported for 3 minutes; running workloads keep their network then."),
			check(CheckMesh, "This node reaches the other nodes of its networks through the mesh, with full-size packets. "+
				"Warning names the nodes that it does not reach."),
		},
	}
	err := c.do(ctx, "register", "service "+reg.ID, `service "weft" write`, func(q *api.QueryOptions) error {
		return c.api.Agent().ServiceRegisterOpts(reg, api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(q.Context()))
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Meta = meta
	c.agent = &s
	return nil
}

// UpdateCheck reports the state of a check (CheckDataPath or CheckMesh) of the registered agent; it must be repeated
// within CheckTTL. When Consul has lost the registration it is made again.
func (c *Client) UpdateCheck(ctx context.Context, check string, status CheckStatus, output string) error {
	c.mu.Lock()
	agent := c.agent
	c.mu.Unlock()
	if agent == nil {
		return fmt.Errorf("update check %s: the agent is not registered: %w", check, os.ErrNotExist)
	}
	id := url.PathEscape(checkID(check, agent.Node))
	update := func() error {
		return c.do(ctx, "update", "check "+check, `service "weft" write`, func(q *api.QueryOptions) error {
			return c.api.Agent().UpdateTTLOpts(id, output, string(status), q)
		})
	}
	err := update()
	if e := (*Error)(nil); errors.As(err, &e) && unknownCheck(e.Said) {
		if err := c.RegisterAgent(ctx, *agent); err != nil {
			return err
		}
		return update()
	}
	return err
}

// unknownCheck tells by its text that the Consul agent does not know a check.
func unknownCheck(said string) bool {
	s := strings.ToLower(said)
	return strings.Contains(s, "unknown check") || strings.Contains(s, "does not have associated ttl")
}

// DeregisterAgent takes the agent of node out of the catalog; success when it is not there.
func (c *Client) DeregisterAgent(ctx context.Context, node string) error {
	c.mu.Lock()
	c.agent = nil
	c.mu.Unlock()
	id := ServiceID(node)
	err := c.do(ctx, "deregister", "service "+id, `service "weft" write`, func(q *api.QueryOptions) error {
		return c.api.Agent().ServiceDeregisterOpts(url.PathEscape(id), q)
	})
	if e := (*Error)(nil); errors.As(err, &e) && strings.Contains(strings.ToLower(e.Said), "unknown service") {
		return nil
	}
	return err
}
