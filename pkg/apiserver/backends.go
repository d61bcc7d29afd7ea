package apiserver

import (
	"context"

	"weft/pkg/api"
)

// Peer is who asks, as the kernel vouches for it (SO_PEERCRED, unix(7)).
type Peer struct {
	UID uint32
	PID int // 0 when the process is not visible from the agent's PID namespace
}

// The interfaces below are what the agent gives the server to answer from. All methods are called concurrently. An
// error that is, or wraps, an *api.Error travels as it is; os.ErrNotExist, os.ErrExist and os.ErrPermission become
// not_found, conflict and forbidden; everything else becomes internal (see api.FromError).

// Networks answers for the cluster's networks.
type Networks interface {
	// Networks lists them without their endpoints, ordered by name.
	Networks(ctx context.Context) ([]api.Network, error)
	// Network is one network with the endpoints of the whole cluster.
	Network(ctx context.Context, name string) (api.Network, error)
	CreateNetwork(ctx context.Context, spec api.NetworkSpec) (api.Network, error)
	RemoveNetwork(ctx context.Context, name string) error
}

// Endpoints answers for endpoints; ref is an id or a name.
type Endpoints interface {
	Endpoints(ctx context.Context) ([]api.Endpoint, error)
	Endpoint(ctx context.Context, ref string) (api.Endpoint, error)
	// Attach returns when the endpoint works. When ctx ends first, nothing may stay behind.
	Attach(ctx context.Context, spec api.AttachSpec, peer Peer) (api.Attachment, error)
	Detach(ctx context.Context, ref string) error
}

// Checks compares endpoints of this node with the kernel.
type Checks interface {
	CheckEndpoint(ctx context.Context, ref string) (api.Check, error)
}

// Processes ties endpoints to processes.
type Processes interface {
	SetProcess(ctx context.Context, ref string, p api.Process) error
}

// Names answers for services and what they are called.
type Names interface {
	// Services lists those of the whole cluster, ordered by network and name.
	Services(ctx context.Context) ([]api.Service, error)
	Service(ctx context.Context, network, name string) (api.Service, error)
	// Drain returns when the names are gone everywhere and, unless told to keep it, the endpoint is detached.
	Drain(ctx context.Context, ref string, spec api.DrainSpec) error
	// QueryName asks as an endpoint of network does, or with network "-" as the host does.
	QueryName(ctx context.Context, network, name, qtype string) (api.NameAnswer, error)
}

// Nodes answers for the cluster's nodes.
type Nodes interface {
	Nodes(ctx context.Context) ([]api.Node, error)
	Node(ctx context.Context, name string) (api.Node, error)
	RemoveNode(ctx context.Context, name string) error
}

// System answers for this node as a whole.
type System interface {
	Status(ctx context.Context) (api.Status, error)
	// Leave returns when goodbye is said; the answer still reaches the client when the agent stops right after.
	Leave(ctx context.Context, spec api.LeaveSpec) error
	Plan(ctx context.Context) (string, error)
}

// Keys answers for this node's WireGuard keys.
type Keys interface {
	Keys(ctx context.Context) (api.KeyStatus, error)
	// RotateKeys begins a change of keys and does not wait for its end; one that goes on already is no error.
	RotateKeys(ctx context.Context) (api.KeyStatus, error)
}

// Trust answers for who is believed.
type Trust interface {
	Trust(ctx context.Context) (api.Trust, error)
	// PutTrust takes a record that an operator signed; a bad one is refused as api.Invalid.
	PutTrust(ctx context.Context, r api.TrustRecord) error
	// ForgetNode drops the pinned identity of a node name on this node.
	ForgetNode(ctx context.Context, name string) error
}
