package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"
)

// Config holds the effective settings. Load returns it complete and checked; the zero value is not usable.
// docs/configuration.md describes every key.
type Config struct {
	// NodeName is unique in the cluster; default: the host name.
	NodeName string
	// DataDir is an absolute path: keys and state.
	DataDir string
	// Socket is the absolute path of the local API's unix socket, at most 107 bytes.
	Socket string
	// Advertise is an address or an interface name; empty means the source address of the default route.
	Advertise string
	WireGuard WireGuard
	Trust     Trust
	// JoinTokenFile is the absolute path of a join token; empty for none.
	JoinTokenFile string
	Egress        Egress
	VXLAN         VXLAN
	// Pools are the IPv4 ranges that subnets of new networks are cut from; at least one, disjoint, no host bits.
	Pools []netip.Prefix
	// PoolSize is the prefix length of a subnet cut from Pools, 16 to 29.
	PoolSize int
	// VTEPPool holds the nodes' tunnel addresses (IPv4).
	VTEPPool netip.Prefix
	IPAM     IPAM
	DNS      DNS
	CNI      CNI
	Consul   Consul
	Log      Log
	// Dev asks for a throwaway Consul and a temporary data directory. Only the flag sets it.
	Dev bool
}

// The values of WireGuard.Backend.
const (
	BackendAuto   = "auto"
	BackendKernel = "kernel"
	BackendEngine = "engine"
	// BackendEngineTUN is not in any list that users see: see wireguard.EngineTUNName.
	BackendEngineTUN = "engine-tun"
)

// The values of Trust.Mode.
const (
	TrustOpen   = "open"
	TrustLocked = "locked"
)

// The values of Log.Format.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// WireGuard configures the mesh.
type WireGuard struct {
	// Ports are the two UDP ports that key generations alternate on; different from each other and from VXLAN.Port.
	Ports []uint16
	// Backend is one of BackendAuto, BackendKernel and BackendEngine.
	Backend string
	// Keepalive is WireGuard's persistent keepalive: whole seconds, at most 65535 s; 0 is off.
	Keepalive time.Duration
	// RotateEvery is the time between changes of the keys, whole seconds; 0 is never.
	RotateEvery time.Duration
}

// Trust says who is believed.
type Trust struct {
	// Mode is TrustOpen or TrustLocked.
	Mode string
	// Signers are Ed25519 public keys, 44 characters of base64 each.
	Signers []string
	// SecretFile is the absolute path of the cluster secret; empty for none.
	SecretFile string
}

// Egress configures the way out of networks that are not internal.
type Egress struct {
	// Pool is cut into one /31 leg per network on this host (IPv4); it is never seen outside the host.
	Pool netip.Prefix
}

// VXLAN configures the overlay's encapsulation.
type VXLAN struct {
	// Port is the UDP port, the same on all nodes.
	Port uint16
}

// IPAM configures addresses.
type IPAM struct {
	// Quarantine is how long a freed address is not given out again; 0 to 24 h.
	Quarantine time.Duration
}

// DNS configures names.
type DNS struct {
	// Upstreams answer what weft does not know; default: the name servers of /etc/resolv.conf. May be empty.
	Upstreams []netip.AddrPort
	// Domain is the domain below which networks are named, without dots at its ends.
	Domain string
	// Listen is where the host asks for names of all networks; the zero value is off.
	Listen netip.AddrPort
	// Consul is Consul's DNS server, asked for names below "consul"; the zero value leaves them to Upstreams.
	Consul netip.AddrPort
	// Prefer is one of PreferAny and PreferLocal.
	Prefer string
}

// The values of DNS.Prefer.
const (
	PreferAny   = "any"
	PreferLocal = "local"
)

// CNI configures what container runtimes find.
type CNI struct {
	// Sync makes the agent keep a network configuration for each network of the cluster in Dir, an absolute path.
	Sync bool
	Dir  string
}

// Consul says how Consul is reached.
type Consul struct {
	// Address is host:port, http://host:port, https://host:port or unix:///path; see Endpoint.
	Address string
	// Token is the ACL token, and TokenFile the absolute path of a file that holds it; at most one is set. See ResolveToken.
	Token     Secret
	TokenFile string
	// Datacenter is empty for the datacenter of the Consul agent that answers.
	Datacenter string
	// Prefix is where weft keeps its keys in Consul, without slashes at its ends.
	Prefix string
	// CatalogPrefix stands before the names of services in Consul's catalog; may be empty.
	CatalogPrefix string
	TLS           TLS
	// Binary is the consul program for Dev: a path, or a name that is searched on PATH.
	Binary string
}

// TLS configures the connection to Consul. All paths are absolute; the zero value uses the system's roots.
type TLS struct {
	CAFile, CAPath    string
	CertFile, KeyFile string // both or none
	// ServerName is the name the certificate must bear; empty means the address's host.
	ServerName string
	// InsecureSkipVerify accepts any certificate.
	InsecureSkipVerify bool
}

// Log configures the log on stderr.
type Log struct {
	Level slog.Level
	// Format is FormatText or FormatJSON.
	Format string
}

// Endpoint splits Address into its scheme ("http", "https" or "unix") and the host:port or path. Without a scheme it is https when
// any TLS setting is set, else http.
func (c Consul) Endpoint() (scheme, host string) {
	scheme, host, found := strings.Cut(c.Address, "://")
	switch {
	case found:
		return scheme, host
	case c.TLS != (TLS{}):
		return "https", c.Address
	default:
		return "http", c.Address
	}
}

// ResolveToken returns Token or, when TokenFile is set, that file's content without the surrounding space. The empty Secret means
// that no token is configured. Errors wrap those of os, as os.ErrNotExist.
func (c Consul) ResolveToken() (Secret, error) {
	if c.TokenFile == "" {
		return c.Token, nil
	}
	data, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return Secret{}, fmt.Errorf("read consul.token_file: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return Secret{}, fmt.Errorf("read consul.token_file: %s is empty", c.TokenFile)
	}
	return NewSecret(token), nil
}
