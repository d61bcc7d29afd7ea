package consul

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

// A Consul agent that lost its servers, in a partition or because they were all restarted, tries again by itself only
// after its reconnect interval: measured 23 s after the heal of a 30 s partition, and more than 20 s after the restart of
// the only server. Asking it to join the members that it knows, as `consul join` does, brings it back in one exchange.

// rejoinMost is how many members are tried at once: the servers first.
const rejoinMost = 4

// Rejoin asks the local Consul agent to join the members that it knows, servers first. It returns nil when one of them
// answered it. os.ErrPermission means that the token may not (agent write); the state of the exchange (Status) is not
// touched, for the local agent's answer says nothing about the cluster.
func (c *Client) Rejoin(ctx context.Context) error {
	const need = `agent "" write`
	var members []*api.AgentMember
	if _, err := c.api.Raw().Query("/v1/agent/members", &members, (&api.QueryOptions{}).WithContext(ctx)); err != nil {
		return translate("list", "members", `agent "" read`, err)
	}
	self, err := c.self(ctx)
	if err != nil {
		return err
	}
	members = slices.DeleteFunc(members, func(m *api.AgentMember) bool { return m.Name == self })
	slices.SortStableFunc(members, func(x, y *api.AgentMember) int { return isServer(y) - isServer(x) })
	if len(members) == 0 {
		return fmt.Errorf("rejoin: the Consul agent knows no other member: %w", os.ErrNotExist)
	}
	members = members[:min(len(members), rejoinMost)]
	results := make(chan error, len(members))
	for _, m := range members {
		go func() {
			at := net.JoinHostPort(m.Addr, strconv.Itoa(int(m.Port)))
			_, err := c.api.Raw().Write("/v1/agent/join/"+at, nil, nil, (&api.WriteOptions{}).WithContext(ctx))
			results <- translate("join", m.Name, need, err)
		}()
	}
	var errs []error
	for range members {
		if err := <-results; err == nil {
			c.mu.Lock()
			c.wake() // the watches that wait may try at once
			c.mu.Unlock()
			errs = nil
			for range len(results) { // those that have ended; the others end with ctx
				<-results
			}
			return nil
		} else {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func isServer(m *api.AgentMember) int {
	if strings.EqualFold(m.Tags["role"], "consul") {
		return 1
	}
	return 0
}

// self is the name of the local Consul agent.
func (c *Client) self(ctx context.Context) (string, error) {
	var out struct{ Member struct{ Name string } }
	if _, err := c.api.Raw().Query("/v1/agent/self", &out, (&api.QueryOptions{}).WithContext(ctx)); err != nil {
		return "", translate("read", "the Consul agent itself", `agent "" read`, err)
	}
	return out.Member.Name, nil
}

// AliveServers counts Consul's servers that the local agent's gossip finds alive. Only the local agent is asked, so it is
// cheap for the cluster.
func (c *Client) AliveServers(ctx context.Context) (int, error) {
	var members []*api.AgentMember
	q := (&api.QueryOptions{Filter: `Tags["role"] == "consul"`}).WithContext(ctx)
	if _, err := c.api.Raw().Query("/v1/agent/members", &members, q); err != nil {
		return 0, translate("list", "members", `agent "" read`, err)
	}
	n := 0
	for _, m := range members {
		if isServer(m) == 1 && m.Status == 1 { // serf.StatusAlive
			n++
		}
	}
	return n, nil
}
