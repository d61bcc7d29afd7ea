package consul

import (
	"context"
	"reflect"
	"strings"

	"github.com/hashicorp/consul/api"
)

// serfCheck is Consul's own check of a host: its gossip says whether the host answers.
const serfCheck = "serfHealth"

// NodeHealth is what the catalog says of one weft node.
type NodeHealth struct {
	// ConsulNode is the name of the Consul agent that the weft agent is registered with.
	ConsulNode string
	// SerfAlive says that Consul's gossip finds the host alive; also true when the host has no such check.
	SerfAlive bool
	// Checks by name (CheckDataPath, CheckMesh).
	Checks  map[string]Check
	Address string
	Port    int
	Meta    map[string]string
}

// Check is the state of one check with what its agent says about it.
type Check struct {
	Status CheckStatus
	Output string
}

// WatchHealth calls fn with the health of all weft nodes by node name, once at first and whenever it changes. Like
// WatchWith it reports troubles to failed (may be nil), passes on no error and no empty answer (this node registers
// itself, so an empty answer means that it may not read), and returns nil when ctx ends. The map is the callee's.
func (c *Client) WatchHealth(ctx context.Context, fn func(map[string]NodeHealth), failed func(error)) error {
	const need = `service "weft" read, node_prefix "" read`
	var last map[string]NodeHealth
	poll := func(ctx context.Context, index uint64) (uint64, error) {
		var now map[string]NodeHealth
		next, err := c.block(ctx, "health of service "+ServiceName, need, index, func(q *api.QueryOptions) (uint64, error) {
			entries, meta, err := c.api.Health().Service(ServiceName, "", false, q)
			if err != nil {
				return 0, err
			}
			if meta.ResultsFilteredByACLs {
				return 0, api.StatusError{Code: 403, Body: "some results were filtered by ACLs"}
			}
			now = nodeHealth(entries)
			return meta.LastIndex, nil
		})
		if err == nil && len(now) == 0 {
			err = &Error{Op: "watch", Key: "health of service " + ServiceName, Kind: ErrUnreadable,
				Hint: "no instance is visible: no agent has registered yet, or the token needs " + need}
			c.note(err)
		}
		if err != nil || reflect.DeepEqual(last, now) {
			return next, err
		}
		last = now
		fn(nodeHealthClone(now))
		return next, nil
	}
	return c.follow(ctx, poll, failed)
}

func nodeHealth(entries []*api.ServiceEntry) map[string]NodeHealth {
	out := make(map[string]NodeHealth, len(entries))
	for _, e := range entries {
		if e == nil || e.Service == nil || e.Node == nil {
			continue
		}
		node, ok := strings.CutPrefix(e.Service.ID, ServiceID(""))
		if !ok || node == "" {
			continue // somebody else's service of that name
		}
		h := NodeHealth{
			ConsulNode: e.Node.Node, SerfAlive: true, Checks: map[string]Check{},
			Address: e.Service.Address, Port: e.Service.Port, Meta: e.Service.Meta,
		}
		for _, check := range e.Checks {
			switch {
			case check.CheckID == serfCheck:
				h.SerfAlive = check.Status != api.HealthCritical
			case check.ServiceID == e.Service.ID:
				h.Checks[check.Name] = Check{Status: CheckStatus(check.Status), Output: check.Output}
			}
		}
		out[node] = h
	}
	return out
}

// nodeHealthClone keeps the watch's own copy apart from the callee's.
func nodeHealthClone(in map[string]NodeHealth) map[string]NodeHealth {
	out := make(map[string]NodeHealth, len(in))
	for node, h := range in {
		checks := make(map[string]Check, len(h.Checks))
		for name, c := range h.Checks {
			checks[name] = c
		}
		h.Checks = checks
		out[node] = h
	}
	return out
}
