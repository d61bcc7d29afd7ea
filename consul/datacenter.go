package consul

import (
	"context"

	"github.com/hashicorp/consul/api"
)

// LocalDatacenter is the datacenter of the Consul agent that this client talks to, which is where its keys are unless
// Config.Datacenter says otherwise.
func (c *Client) LocalDatacenter(ctx context.Context) (string, error) {
	if c.cfg.Datacenter != "" {
		return c.cfg.Datacenter, nil
	}
	var dc string
	err := c.do(ctx, "read", "the Consul agent's own configuration", `agent_prefix "" read`, func(q *api.QueryOptions) error {
		// Catalog().Nodes would need node rights; /v1/agent/self is what every agent token has.
		var out map[string]map[string]any
		_, err := c.api.Raw().Query("/v1/agent/self", &out, q)
		if err == nil {
			dc, _ = out["Config"]["Datacenter"].(string)
		}
		return err
	})
	return dc, err
}
