package apiclient

import (
	"context"
	"net/http"

	"weft/pkg/api"
)

// Status is this node's state.
func (c *Client) Status(ctx context.Context) (st api.Status, err error) {
	err = c.get(ctx, &st, "status")
	return st, err
}

// Networks lists the cluster's networks without their endpoints.
func (c *Client) Networks(ctx context.Context) (ns []api.Network, err error) {
	err = c.get(ctx, &ns, "networks")
	return ns, err
}

// Network is one network with the endpoints of the whole cluster; os.ErrNotExist when there is none.
func (c *Client) Network(ctx context.Context, name string) (n api.Network, err error) {
	err = c.get(ctx, &n, "networks", name)
	return n, err
}

// CreateNetwork makes a network; os.ErrExist when the name or the subnet is taken.
func (c *Client) CreateNetwork(ctx context.Context, spec api.NetworkSpec) (n api.Network, err error) {
	err = c.send(ctx, http.MethodPost, spec, &n, "networks")
	return n, err
}

// RemoveNetwork removes a network that has no endpoints; os.ErrExist says which are left.
func (c *Client) RemoveNetwork(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, nil, nil, "networks", name)
}

// Endpoints lists the endpoints of the whole cluster.
func (c *Client) Endpoints(ctx context.Context) (es []api.Endpoint, err error) {
	err = c.get(ctx, &es, "endpoints")
	return es, err
}

// Endpoint is one endpoint, by id or name.
func (c *Client) Endpoint(ctx context.Context, ref string) (e api.Endpoint, err error) {
	err = c.get(ctx, &e, "endpoints", ref)
	return e, err
}

// Attach makes an endpoint and returns when it works. When ctx ends first the agent takes it back, unless spec.ID is
// set: then the caller detaches that id.
func (c *Client) Attach(ctx context.Context, spec api.AttachSpec) (a api.Attachment, err error) {
	err = c.send(ctx, http.MethodPost, spec, &a, "endpoints")
	return a, err
}

// Detach ends an endpoint of this node, by id or name.
func (c *Client) Detach(ctx context.Context, ref string) error {
	return c.send(ctx, http.MethodDelete, nil, nil, "endpoints", ref)
}

// CheckEndpoint compares an endpoint of this node with the kernel, by id or name.
func (c *Client) CheckEndpoint(ctx context.Context, ref string) (ch api.Check, err error) {
	err = c.get(ctx, &ch, "endpoints", ref, "check")
	return ch, err
}

// SetProcess ties an endpoint of this node to a process: it is detached when the process is gone.
func (c *Client) SetProcess(ctx context.Context, id string, p api.Process) error {
	return c.send(ctx, http.MethodPut, p, nil, "endpoints", id, "process")
}

// Drain takes an endpoint's names away and, unless spec says to keep it, detaches it once nobody can know them any more.
func (c *Client) Drain(ctx context.Context, ref string, spec api.DrainSpec) error {
	return c.send(ctx, http.MethodPost, spec, nil, "endpoints", ref, "drain")
}

// Services lists the services of the whole cluster.
func (c *Client) Services(ctx context.Context) (all []api.Service, err error) {
	err = c.get(ctx, &all, "services")
	return all, err
}

// Service is one service; os.ErrNotExist when nobody offers it.
func (c *Client) Service(ctx context.Context, network, name string) (s api.Service, err error) {
	err = c.get(ctx, &s, "services", network, name)
	return s, err
}

// QueryName asks the name server as an endpoint of network does, or with network "" as the host does.
func (c *Client) QueryName(ctx context.Context, network, name, qtype string) (a api.NameAnswer, err error) {
	if network == "" {
		network = "-"
	}
	err = c.get(ctx, &a, "dns", network, name, qtype)
	return a, err
}

// Nodes lists the cluster's nodes.
func (c *Client) Nodes(ctx context.Context) (ns []api.Node, err error) {
	err = c.get(ctx, &ns, "nodes")
	return ns, err
}

// Node is one node.
func (c *Client) Node(ctx context.Context, name string) (n api.Node, err error) {
	err = c.get(ctx, &n, "nodes", name)
	return n, err
}

// RemoveNode frees what a dead node holds.
func (c *Client) RemoveNode(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, nil, nil, "nodes", name)
}

// Keys says where this node stands with its WireGuard keys.
func (c *Client) Keys(ctx context.Context) (k api.KeyStatus, err error) {
	err = c.get(ctx, &k, "keys")
	return k, err
}

// RotateKeys begins a change of WireGuard keys on all nodes.
func (c *Client) RotateKeys(ctx context.Context) (k api.KeyStatus, err error) {
	err = c.send(ctx, http.MethodPost, nil, &k, "keys", "rotate")
	return k, err
}

// Trust says who is believed.
func (c *Client) Trust(ctx context.Context) (t api.Trust, err error) {
	err = c.get(ctx, &t, "trust")
	return t, err
}

// PutTrust has the agent check a signed record of trust and put it into Consul.
func (c *Client) PutTrust(ctx context.Context, r api.TrustRecord) error {
	return c.send(ctx, http.MethodPost, r, nil, "trust", "records")
}

// ForgetNode drops what the agent has pinned of a node name.
func (c *Client) ForgetNode(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodPost, nil, nil, "nodes", name, "forget")
}

// Leave makes the agent say goodbye, take its data path down and stop.
func (c *Client) Leave(ctx context.Context, spec api.LeaveSpec) error {
	return c.send(ctx, http.MethodPost, spec, nil, "leave")
}

// Plan is the wanted and observed kernel state and their difference, as text.
func (c *Client) Plan(ctx context.Context) (string, error) {
	data, err := c.do(ctx, readTimeout, http.MethodGet, nil, "plan")
	return string(data), err
}
