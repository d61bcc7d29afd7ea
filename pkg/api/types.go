package api

import (
	"net/netip"
	"time"

	"weft/pkg/overlay"
)

// Routes, all below Prefix. Reads are GET.
//
//	GET    /v1/status                       Status
//	GET    /v1/networks                     []Network
//	POST   /v1/networks                     NetworkSpec -> Network
//	GET    /v1/networks/{name}              Network, with Endpoints of the whole cluster
//	DELETE /v1/networks/{name}
//	GET    /v1/endpoints                    []Endpoint (whole cluster; Local says which are this node's)
//	GET    /v1/endpoints/{id or name}       Endpoint
//	POST   /v1/endpoints                    AttachSpec -> Attachment
//	DELETE /v1/endpoints/{id or name}
//	GET    /v1/endpoints/{id or name}/check Check, of an endpoint of this node
//	PUT    /v1/endpoints/{id}/process       Process: ties the endpoint's life to a process
//	POST   /v1/endpoints/{id or name}/drain DrainSpec: its names go, then the endpoint
//	GET    /v1/services                     []Service (whole cluster)
//	GET    /v1/services/{network}/{name}    Service
//	GET    /v1/dns/{network}/{name}/{type}  NameAnswer; network "-" asks as the host does
//	GET    /v1/nodes                        []Node
//	GET    /v1/nodes/{name}                 Node
//	DELETE /v1/nodes/{name}                 a dead node's leases are freed
//	GET    /v1/keys                         KeyStatus
//	POST   /v1/keys/rotate                  -> KeyStatus; a change of WireGuard keys begins
//	GET    /v1/trust                        Trust
//	POST   /v1/trust/records                TrustRecord; a record that an operator has signed
//	POST   /v1/nodes/{name}/forget          what is pinned of the name is dropped
//	POST   /v1/leave                        LeaveSpec
//	GET    /v1/plan                         text: wanted and observed kernel state, and the difference
const Prefix = "/v1"

// Version of the API, sent and checked in the Weft-Api header.
const Version = "1"

// Error is the body of every answer that is not 2xx.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"` // one line: what is wrong, where, what to do
}

func (e *Error) Error() string { return e.Message }

// Code classifies an Error.
type Code string

// The codes, with their HTTP status.
const (
	Invalid     Code = "invalid"     // 400
	Forbidden   Code = "forbidden"   // 403
	NotFound    Code = "not_found"   // 404
	Conflict    Code = "conflict"    // 409
	Exhausted   Code = "exhausted"   // 507: no free address
	Unavailable Code = "unavailable" // 503: Consul or the data path is not there (yet)
	Internal    Code = "internal"    // 500
)

// NetworkSpec asks for a network. Zero fields are chosen by weft.
type NetworkSpec struct {
	Name         string            `json:"name"`
	Subnet       string            `json:"subnet,omitempty"`
	IPRange      string            `json:"ipRange,omitempty"`
	Gateway      string            `json:"gateway,omitempty"`
	Encrypted    bool              `json:"encrypted,omitempty"`
	MTU          int               `json:"mtu,omitempty"`
	Internal     bool              `json:"internal,omitempty"`
	AllowOverlap bool              `json:"allowOverlap,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
}

// Network describes a network.
type Network struct {
	Name         string            `json:"name"`
	ID           overlay.NetworkID `json:"id"`
	VNI          overlay.VNI       `json:"vni"`
	Subnets      []netip.Prefix    `json:"subnets"`
	IPRange      string            `json:"ipRange,omitempty"`
	Gateway      netip.Addr        `json:"gateway"`
	Encrypted    bool              `json:"encrypted"`
	Internal     bool              `json:"internal"`
	AllowOverlap bool              `json:"allowOverlap,omitempty"`
	MTU          int               `json:"mtu"`
	Labels       map[string]string `json:"labels,omitempty"`
	Created      time.Time         `json:"created"`
	// Local says whether this node has endpoints on it; Nodes is how many nodes have.
	Local bool `json:"local"`
	Nodes int  `json:"nodes"`
	// Endpoints is filled by inspect, EndpointCount always.
	EndpointCount int        `json:"endpointCount"`
	Endpoints     []Endpoint `json:"endpoints,omitzero"` // in a list: left out
	Problems      []string   `json:"problems,omitempty"`
}

// Endpoint describes an endpoint anywhere in the cluster.
type Endpoint struct {
	ID       overlay.EndpointID `json:"id"`
	Name     string             `json:"name"`
	Network  string             `json:"network"`
	Node     string             `json:"node"`
	Address  netip.Addr         `json:"address"`
	MAC      string             `json:"mac"`
	Service  string             `json:"service,omitempty"` // the first of Services
	Services []string           `json:"services,omitempty"`
	Local    bool               `json:"local"`
	NetNS    string             `json:"netns,omitempty"` // of a local endpoint: path to enter
	DNS      []netip.Addr       `json:"dns,omitempty"`
	PID      int                `json:"pid,omitempty"`
	State    string             `json:"state"` // "up", "pending", "leaving" or "remote"
	Owner    string             `json:"owner,omitempty"`
	IfName   string             `json:"ifname,omitempty"` // of a local endpoint
	Aliases  []string           `json:"aliases,omitempty"`
	Ports    []overlay.Port     `json:"ports,omitempty"`
	// Health is "" without a check, "starting", "passing", "failing" or "draining".
	Health string `json:"health,omitempty"`
	// Search is what resolv.conf's search line should hold, of a local endpoint.
	Search []string `json:"search,omitempty"`
}

// Check is what a look at the kernel found of one endpoint of this node. Weft mends such things by itself, so a
// problem that is reported may be gone at the next look.
type Check struct {
	Endpoint Endpoint `json:"endpoint"`
	// Problems are the differences between what is wanted and what is there; empty when the endpoint is as it must be.
	Problems []string `json:"problems"`
}

// AttachSpec asks for an endpoint. Exactly one of NetNS and NewNetNS is set.
type AttachSpec struct {
	Network  string   `json:"network"`
	ID       string   `json:"id,omitempty"`
	Name     string   `json:"name,omitempty"`
	Services []string `json:"services,omitempty"`
	Address  string   `json:"address,omitempty"`
	MAC      string   `json:"mac,omitempty"`    // default: chosen
	IfName   string   `json:"ifname,omitempty"` // default eth0
	// Aliases are more names of this endpoint alone; Ports are looked up with SRV.
	Aliases []string       `json:"aliases,omitempty"`
	Ports   []overlay.Port `json:"ports,omitempty"`
	// Check decides whether names lead to it.
	Check *CheckSpec `json:"check,omitempty"`
	// NetNS is a path in the agent's file system that names a network namespace, as /run/netns/x or /proc/7/ns/net.
	NetNS string `json:"netns,omitempty"`
	// PID, with NetNS unset, means /proc/PID/ns/net; the endpoint ends with that process.
	PID int `json:"pid,omitempty"`
	// NewNetNS asks weft to make a namespace for it.
	NewNetNS bool `json:"newNetns,omitempty"`
	// HostRoute asks for a route from this host to the endpoint, over the network's egress leg: for programs of the host
	// that must reach it, and for redirections of the host's ports.
	HostRoute bool `json:"hostRoute,omitempty"`
	// Owner says which program keeps the endpoint, as "cni/mynet"; weft only stores it, for that program to find its own.
	Owner string `json:"owner,omitempty"`
	// Exclusive makes an ID that exists a conflict, where otherwise the same attach again changes nothing. And since
	// such an attach always makes the endpoint, it is taken back when its client leaves before the answer.
	Exclusive bool `json:"exclusive,omitempty"`
}

// CheckSpec asks for a health check, run by the agent.
type CheckSpec struct {
	// Check is "tcp:PORT", "http:PORT/PATH", "cmd:COMMAND" (run by sh in the endpoint's network namespace) or "none".
	Check string `json:"check"`
	// Interval and Timeout are durations such as "2s"; empty means 2s and 1s.
	Interval string `json:"interval,omitempty"`
	Timeout  string `json:"timeout,omitempty"`
}

// DrainSpec asks for the end of an endpoint's names.
type DrainSpec struct {
	// Keep leaves the endpoint attached; else it is detached once no resolver can know its names any more.
	Keep bool `json:"keep,omitempty"`
}

// Service is the endpoints of one network that offer the same thing.
type Service struct {
	Name      string     `json:"name"`
	Network   string     `json:"network"`
	Instances []Instance `json:"instances"`
	// Answered is how many of them names lead to, Nodes on how many nodes the instances are.
	Answered int `json:"answered"`
	Nodes    int `json:"nodes"`
}

// Instance is one endpoint of a service.
type Instance struct {
	Endpoint string             `json:"endpoint"`
	ID       overlay.EndpointID `json:"id"`
	Node     string             `json:"node"`
	Address  netip.Addr         `json:"address"`
	Ports    []overlay.Port     `json:"ports,omitempty"`
	// Health is as in Endpoint, or "node dead".
	Health   string `json:"health,omitempty"`
	Answered bool   `json:"answered"`
}

// NameAnswer is what the name server answers, and why.
type NameAnswer struct {
	Question   string         `json:"question"`
	Type       string         `json:"type"`
	Rcode      string         `json:"rcode"`
	Answer     []string       `json:"answer"` // zone-file notation, as the other sections
	Authority  []string       `json:"authority,omitempty"`
	Additional []string       `json:"additional,omitempty"`
	Source     string         `json:"source"` // "records", "cache", "upstreams", "consul", "zone NAME" or "nobody"
	Why        []string       `json:"why"`
	Instances  []NameInstance `json:"instances,omitempty"`
}

// NameInstance is an endpoint behind a name.
type NameInstance struct {
	Endpoint string     `json:"endpoint"`
	Network  string     `json:"network"`
	Node     string     `json:"node"`
	Address  netip.Addr `json:"address"`
	Health   string     `json:"health"`
	Answered bool       `json:"answered"`
}

// Process ties an endpoint to a process: it is detached when the process is gone.
type Process struct {
	PID int `json:"pid"`
}

// Attachment is an attached endpoint.
type Attachment struct {
	ID      overlay.EndpointID `json:"id"`
	Name    string             `json:"name"`
	Network string             `json:"network"`
	Address netip.Prefix       `json:"address"` // with the subnet's prefix length
	MAC     string             `json:"mac"`
	MTU     int                `json:"mtu"`
	Gateway netip.Addr         `json:"gateway"`
	DNS     []netip.Addr       `json:"dns"`
	NetNS   string             `json:"netns"` // path to enter
	// DefaultRoute says whether the namespace's default route leads through this endpoint's gateway.
	DefaultRoute bool `json:"defaultRoute,omitempty"`
	// Search is what resolv.conf's search line should hold.
	Search []string `json:"search,omitempty"`
	// Warning is set when the endpoint works but something did not, as publishing it while Consul is away.
	Warning string `json:"warning,omitempty"`
}

// Node describes a node of the cluster.
type Node struct {
	Name        string       `json:"name"`
	Datacenter  string       `json:"datacenter"`
	VTEP        netip.Addr   `json:"vtep"`
	Underlay    []netip.Addr `json:"underlay"`
	UnderlayMTU int          `json:"underlayMtu"`
	Backend     string       `json:"backend"`
	Version     string       `json:"version"`
	Identity    string       `json:"identity"`
	WireGuard   []string     `json:"wireguard"` // public keys, newest last
	Endpoints   int          `json:"endpoints"`
	Self        bool         `json:"self"`
	Left        bool         `json:"left"`
	Problem     string       `json:"problem,omitempty"` // why its record is not used
}

// LeaveSpec asks the agent to say goodbye and take the data path down.
type LeaveSpec struct {
	Purge bool `json:"purge"` // also remove keys and state
	Force bool `json:"force"` // although endpoints exist
}

// Status is this node's state on one screen.
type Status struct {
	Node       string          `json:"node"`
	Datacenter string          `json:"datacenter"`
	Version    string          `json:"version"`
	Cluster    string          `json:"cluster"`
	Backend    string          `json:"backend"`
	VTEP       netip.Addr      `json:"vtep"`
	Underlay   netip.Addr      `json:"underlay"`
	Consul     ConsulStatus    `json:"consul"`
	Peers      []PeerStatus    `json:"peers"`
	Networks   []NetworkStatus `json:"networks"`
	Reconcile  ReconcileStatus `json:"reconcile"`
	Keys       KeyStatus       `json:"keys"`
	// Drops counts what the fences dropped, by counter name.
	Drops    map[string]uint64 `json:"drops"`
	Problems []Problem         `json:"problems"`
}

// ConsulStatus says whether Consul answers.
type ConsulStatus struct {
	Address string `json:"address"`
	OK      bool   `json:"ok"`
	Error   string `json:"error,omitempty"`
}

// PeerStatus is one WireGuard peer.
type PeerStatus struct {
	Node     string     `json:"node"`
	VTEP     netip.Addr `json:"vtep"`
	Endpoint string     `json:"endpoint"`
	// HandshakeAgeSeconds is -1 when there was none yet.
	HandshakeAgeSeconds float64 `json:"handshakeAgeSeconds"`
	Up                  bool    `json:"up"` // handshake younger than 3 minutes
	// Path is what the last probe found: "ok" (full-size packets pass), "small" (only small ones do), "silent", or empty
	// before the first probe.
	Path    string `json:"path,omitempty"`
	RxBytes int64  `json:"rxBytes"`
	TxBytes int64  `json:"txBytes"`
}

// NetworkStatus is one network on this node.
type NetworkStatus struct {
	Name      string      `json:"name"`
	VNI       overlay.VNI `json:"vni"`
	Encrypted bool        `json:"encrypted"`
	Internal  bool        `json:"internal"`
	MTU       int         `json:"mtu"`
	Local     int         `json:"local"`  // endpoints here
	Remote    int         `json:"remote"` // endpoints elsewhere
	State     string      `json:"state"`  // "up", "idle" (no endpoint here), "error"
	Error     string      `json:"error,omitempty"`
}

// ReconcileStatus counts the loop's work since the agent started.
type ReconcileStatus struct {
	Passes  uint64 `json:"passes"`
	Applied uint64 `json:"applied"` // operations
	Failed  uint64 `json:"failed"`
	// LastChange is when an operation was applied last.
	LastChange time.Time `json:"lastChange,omitzero"`
	// Frozen says why nothing is removed at present, empty when removal is allowed.
	Frozen string `json:"frozen,omitempty"`
}

// KeyStatus says where this node stands with its generations of WireGuard keys.
type KeyStatus struct {
	// Generation is the newest live one.
	Generation int `json:"generation"`
	// Changing says that traffic moves from generation From to it; Carried is which carries the traffic to each peer.
	Changing bool           `json:"changing"`
	From     int            `json:"from,omitempty"`
	Carried  map[string]int `json:"carried,omitempty"`
	Since    time.Time      `json:"since,omitzero"`
	// Next is about when the next change begins by itself; zero for never.
	Next    time.Time `json:"next,omitzero"`
	Problem string    `json:"problem,omitempty"`
}

// Trust says who is believed, as this node knows it.
type Trust struct {
	Mode    string `json:"mode"` // "open" or "locked"
	Cluster string `json:"cluster"`
	// Signers holds those of this node's configuration first.
	Signers []TrustKey   `json:"signers"`
	Nodes   []TrustNode  `json:"nodes"`
	Tokens  []TrustToken `json:"tokens"`
	// Revisions holds the revision of each record of trust, by path: the next one counts on from it.
	Revisions map[string]uint64 `json:"revisions"`
}

// TrustKey is a signer.
type TrustKey struct {
	Key     string `json:"key"`
	Name    string `json:"name"`
	By      string `json:"by,omitempty"`
	Revoked bool   `json:"revoked"`
}

// TrustNode is an identity that is a node, was one, or would like to be.
type TrustNode struct {
	Name     string `json:"name"`
	Identity string `json:"identity"`
	State    string `json:"state"` // "admitted", "pinned", "waiting", "not admitted", "revoked" or why it is refused
	By       string `json:"by,omitempty"`
	Revoked  bool   `json:"revoked"`
}

// TrustToken is a join token.
type TrustToken struct {
	Key     string    `json:"key"`
	Uses    int       `json:"uses"`
	Used    int       `json:"used"`
	Expires time.Time `json:"expires"`
	Revoked bool      `json:"revoked"`
}

// TrustRecord is a signed record of trust, to be checked by the agent and put into Consul.
type TrustRecord struct {
	Path  string `json:"path"`
	Value string `json:"value"` // the record's bytes, as they are signed
}

// Problem is something wrong, with its cause and what to do.
type Problem struct {
	Subject string `json:"subject"` // network, node, peer, or part of the agent
	Message string `json:"message"`
}
