package config

import (
	"log/slog"
	"net/netip"
	"time"
)

const (
	envPrefix  = "WEFT_"
	configEnv  = "WEFT_CONFIG"
	configFlag = "config"
	resolvConf = "/etc/resolv.conf"
)

// settings are all keys, in the order of docs and prints.
var settings = []*setting{
	one("node_name", nodeName, func(c *Config) *string { return &c.NodeName },
		"This node's name, unique in the cluster.").lookedUp("host name", "the host name"),
	one("data_dir", required, func(c *Config) *string { return &c.DataDir },
		"Directory of keys and state; keep it over upgrades, back it up as a secret.", "/var/lib/weft"),
	one("socket", socketPath, func(c *Config) *string { return &c.Socket },
		"Unix socket of the local API.", "/run/weft/weft.sock"),
	one("advertise", advertise, func(c *Config) *string { return &c.Advertise },
		"Address other nodes reach this one at, or the interface that has it.", "").described("source address of the default route"),
	many("wireguard.ports", port, func(c *Config) *[]uint16 { return &c.WireGuard.Ports },
		"The two UDP ports that key generations alternate on; open both in the firewall.", "51820", "51821"),
	one("wireguard.backend", oneOf(BackendAuto, BackendKernel, BackendEngine).also(BackendEngineTUN), func(c *Config) *string { return &c.WireGuard.Backend },
		"Where WireGuard runs: `kernel`, `engine` (userspace), or `auto`: the kernel when it can.", BackendAuto),
	one("wireguard.keepalive", span(time.Second, 65535*time.Second), func(c *Config) *time.Duration { return &c.WireGuard.Keepalive },
		"Interval of keepalives to each peer, which hold NAT mappings open; `0s` is off.", "25s").reloadable(),
	one("wireguard.rotate_every", span(time.Second, 365*24*time.Hour), func(c *Config) *time.Duration { return &c.WireGuard.RotateEvery },
		"Time between changes of the WireGuard keys, jittered; the first node to change takes the others along; `0s` is never.", "24h0m0s").reloadable(),
	one("trust.mode", oneOf(TrustOpen, TrustLocked), func(c *Config) *string { return &c.Trust.Mode },
		"Who is a node: whoever comes first by a name (`open`), or only whom a signer admitted (`locked`).", TrustOpen),
	many("trust.signers", identity, func(c *Config) *[]string { return &c.Trust.Signers },
		"Public keys of the signers, as `weft trust init` prints them; needed for `locked`."),
	one("trust.secret_file", absolute, func(c *Config) *string { return &c.Trust.SecretFile },
		"File with a secret that all nodes share and Consul does not know, mixed into every preshared key.", ""),
	one("join_token_file", absolute, func(c *Config) *string { return &c.JoinTokenFile },
		"File with a token from `weft trust token create`, with which a new node admits itself.", ""),
	one("egress.pool", prefix("an IPv4 prefix"), func(c *Config) *netip.Prefix { return &c.Egress.Pool },
		"Range for the legs by which networks leave this host; used inside the host only.", "169.254.64.0/18"),
	one("vxlan.port", single(port, "a port number"), func(c *Config) *uint16 { return &c.VXLAN.Port },
		"UDP port of VXLAN, the same on all nodes.", "4789"),
	many("pools", prefix("IPv4 prefixes"), func(c *Config) *[]netip.Prefix { return &c.Pools },
		"Ranges that the subnets of new networks are cut from.", "10.0.0.0/8").reloadable(),
	one("pool_size", whole(16, 29), func(c *Config) *int { return &c.PoolSize },
		"Prefix length of a subnet cut from `pools`.", "24").reloadable(),
	one("vtep_pool", prefix("an IPv4 prefix"), func(c *Config) *netip.Prefix { return &c.VTEPPool },
		"Range of the nodes' tunnel addresses, the same on all nodes.", "100.64.0.0/16"),
	one("ipam.quarantine", span(1, 24*time.Hour), func(c *Config) *time.Duration { return &c.IPAM.Quarantine },
		"How long a freed address rests before it is given out again.", "1m0s").reloadable(),
	many("dns.upstreams", upstream, func(c *Config) *[]netip.AddrPort { return &c.DNS.Upstreams },
		"Name servers for everything weft does not answer; `address` or `address:port`.").
		lookedUp(resolvConf, "the name servers of `"+resolvConf+"`").reloadable(),
	one("dns.domain", domain, func(c *Config) *string { return &c.DNS.Domain },
		"Domain below which every network's names also exist.", "weft"),
	one("dns.listen", optionalServer, func(c *Config) *netip.AddrPort { return &c.DNS.Listen },
		"Address on this host that answers `<service>.<network>.<domain>` of all networks; empty is off.", "127.0.0.1:8653"),
	one("dns.consul", optionalServer, func(c *Config) *netip.AddrPort { return &c.DNS.Consul },
		"Consul's DNS server, asked for names below `consul`; empty leaves them to `dns.upstreams`.", "127.0.0.1:8600"),
	one("dns.prefer", oneOf(PreferAny, PreferLocal), func(c *Config) *string { return &c.DNS.Prefer },
		"Which instances of a service come first in answers: `any`, or `local`: those of the asker's own host.", PreferAny),
	one("cni.sync", boolean, func(c *Config) *bool { return &c.CNI.Sync },
		"Keep a CNI configuration for each network in `cni.dir`, as `weft cni install` writes it.", "false"),
	one("cni.dir", required, func(c *Config) *string { return &c.CNI.Dir },
		"Directory in which container runtimes look for CNI configurations.", "/etc/cni/net.d"),
	one("consul.address", consulAddress, func(c *Config) *string { return &c.Consul.Address },
		"Consul's HTTP API: `host:port`, `http://…`, `https://…` or `unix:///path`.", "127.0.0.1:8500"),
	one("consul.token", secret, func(c *Config) *Secret { return &c.Consul.Token },
		"ACL token; better `consul.token_file`.", "").hidden(),
	one("consul.token_file", absolute, func(c *Config) *string { return &c.Consul.TokenFile },
		"File that holds the ACL token.", ""),
	one("consul.datacenter", datacenter, func(c *Config) *string { return &c.Consul.Datacenter },
		"Consul datacenter.", "").described("that of the Consul agent"),
	one("consul.prefix", kvPrefix, func(c *Config) *string { return &c.Consul.Prefix },
		"Prefix of weft's keys in Consul KV, the same on all nodes.", "weft"),
	one("consul.catalog_prefix", catalogPrefix, func(c *Config) *string { return &c.Consul.CatalogPrefix },
		"Prefix of service names in Consul's catalog; empty for plain names.", "weft-"),
	one("consul.tls.ca_file", absolute, func(c *Config) *string { return &c.Consul.TLS.CAFile },
		"CA certificate (PEM) that Consul's certificate is checked with.", "").described("the system's CAs"),
	one("consul.tls.ca_path", absolute, func(c *Config) *string { return &c.Consul.TLS.CAPath },
		"Directory of CA certificates.", ""),
	one("consul.tls.cert_file", absolute, func(c *Config) *string { return &c.Consul.TLS.CertFile },
		"Client certificate (PEM); needs `consul.tls.key_file`.", ""),
	one("consul.tls.key_file", absolute, func(c *Config) *string { return &c.Consul.TLS.KeyFile },
		"Key of the client certificate (PEM).", ""),
	one("consul.tls.server_name", serverName, func(c *Config) *string { return &c.Consul.TLS.ServerName },
		"Name that Consul's certificate must bear.", "").described("the host of `consul.address`"),
	one("consul.tls.insecure_skip_verify", boolean, func(c *Config) *bool { return &c.Consul.TLS.InsecureSkipVerify },
		"Accept any certificate; for tests only.", "false"),
	one("consul.binary", program, func(c *Config) *string { return &c.Consul.Binary },
		"The consul program that `--dev` starts: a path, or a name on PATH.", "consul"),
	one("log.level", level, func(c *Config) *slog.Level { return &c.Log.Level },
		"Least severe level that is logged: `debug`, `info`, `warn` or `error`.", "info").reloadable(),
	one("log.format", oneOf(FormatText, FormatJSON), func(c *Config) *string { return &c.Log.Format },
		"Form of the log on stderr: `text` or `json`.", FormatText),
	one("dev", boolean, func(c *Config) *bool { return &c.Dev },
		"Start a throwaway Consul and keep data in a temporary directory; a flag only.", "false").onlyFlag(),
}

var byName = func() map[string]*setting {
	m := map[string]*setting{}
	for _, s := range settings {
		m[s.name] = s
	}
	return m
}()

func (s *setting) reloadable() *setting             { s.reload = true; return s }
func (s *setting) onlyFlag() *setting               { s.flagOnly = true; return s }
func (s *setting) hidden() *setting                 { s.secret = true; return s }
func (s *setting) described(doc string) *setting    { s.presetDoc = doc; return s }
func (s *setting) lookedUp(at, doc string) *setting { s.lookup, s.presetDoc = at, doc; return s }

// single renames a kind whose name is a plural for lists.
func single[T any](k kind[T], want string) kind[T] {
	k.want = want
	return k
}
