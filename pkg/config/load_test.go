package config

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDefaults(t *testing.T) {
	dir := write(t, map[string]string{"resolv.conf": "# x\nnameserver 192.0.2.53\nsearch example.org\nnameserver 2001:db8::53\nnameserver bad\n"})
	l := mustLoad(t, options(dir))
	diff(t, Config{
		NodeName:  "host1",
		DataDir:   "/var/lib/weft",
		Socket:    "/run/weft/weft.sock",
		WireGuard: WireGuard{Ports: []uint16{51820, 51821}, Backend: BackendAuto, Keepalive: 25 * time.Second, RotateEvery: 24 * time.Hour},
		Trust:     Trust{Mode: TrustOpen},
		Egress:    Egress{Pool: netip.MustParsePrefix("169.254.64.0/18")},
		VXLAN:     VXLAN{Port: 4789},
		Pools:     []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		PoolSize:  24,
		VTEPPool:  netip.MustParsePrefix("100.64.0.0/16"),
		IPAM:      IPAM{Quarantine: time.Minute},
		DNS: DNS{Upstreams: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[2001:db8::53]:53")}, Domain: "weft",
			Listen: netip.MustParseAddrPort("127.0.0.1:8653"), Consul: netip.MustParseAddrPort("127.0.0.1:8600"), Prefer: PreferAny},
		CNI:    CNI{Dir: "/etc/cni/net.d"},
		Consul: Consul{Address: "127.0.0.1:8500", Prefix: "weft", CatalogPrefix: "weft-", Binary: "consul"},
		Log:    Log{Level: slog.LevelInfo, Format: FormatText},
	}, l.Config)
	diff(t, []string(nil), l.Files)
	diff(t, []string(nil), l.Warnings)
	if got := l.Sources["node_name"].String(); got != "default (host name)" {
		t.Errorf("source of node_name: %s", got)
	}
	if len(l.Sources) != len(settings) {
		t.Errorf("%d sources for %d keys", len(l.Sources), len(settings))
	}
}

func TestPrecedence(t *testing.T) {
	files := map[string]string{
		"weft.yaml":           "log: {level: error}\nconsul: {address: 'a.example.org:1', prefix: one, token: t}\npools: [10.1.0.0/16, 10.2.0.0/16]\n",
		"conf.d/10.toml":      "[consul]\naddress = \"b.example.org:2\"\n[wireguard]\nports = [1, 2]\n",
		"conf.d/20.json":      `{"consul": {"address": "c.example.org:3"}, "pools": ["10.3.0.0/16"]}`,
		"conf.d/30.hcl":       "consul { address = \"d.example.org:4\" }\nconsul \"tls\" { insecure_skip_verify = true }\n",
		"conf.d/.hidden.yaml": "bogus: 1\n", "conf.d/old.yaml~": "bogus: 1\n", "conf.d/x.yaml.example": "bogus: 1\n",
		"conf.d/dir.yaml/x.yaml": "bogus: 1\n",
	}
	tests := []struct {
		name    string
		environ []string
		flags   []string
		key     string
		want    string
		source  string
	}{
		{name: "default", key: "consul.catalog_prefix", want: "weft-", source: "default"},
		{name: "file", key: "consul.prefix", want: "one", source: "file DIR/weft.yaml"},
		{name: "last file", key: "consul.address", want: "d.example.org:4", source: "file DIR/conf.d/30.hcl"},
		{name: "list replaces list", key: "pools", want: "10.3.0.0/16", source: "file DIR/conf.d/20.json"},
		{name: "labelled block", key: "consul.tls.insecure_skip_verify", want: "true", source: "file DIR/conf.d/30.hcl"},
		{name: "env over file", environ: []string{"WEFT_CONSUL_ADDRESS=e.example.org:5"}, key: "consul.address", want: "e.example.org:5", source: "env WEFT_CONSUL_ADDRESS"},
		{name: "last of two variables", environ: []string{"WEFT_LOG_LEVEL=info", "WEFT_LOG_LEVEL=warn"}, key: "log.level", want: "warn", source: "env WEFT_LOG_LEVEL"},
		{name: "empty env is not set", environ: []string{"WEFT_CONSUL_ADDRESS="}, key: "consul.address", want: "d.example.org:4", source: "file DIR/conf.d/30.hcl"},
		{name: "list in env", environ: []string{"WEFT_POOLS=10.0.0.0/8, 172.16.0.0/12"}, key: "pools", want: "10.0.0.0/8, 172.16.0.0/12", source: "env WEFT_POOLS"},
		{name: "numbers in env", environ: []string{"WEFT_WIREGUARD_PORTS=7,8"}, key: "wireguard.ports", want: "7, 8", source: "env WEFT_WIREGUARD_PORTS"},
		{name: "number in env", environ: []string{"WEFT_VXLAN_PORT=9"}, key: "vxlan.port", want: "9", source: "env WEFT_VXLAN_PORT"},
		{name: "truth in env", environ: []string{"WEFT_CONSUL_TLS_INSECURE_SKIP_VERIFY=false"}, key: "consul.tls.insecure_skip_verify", want: "false", source: "env WEFT_CONSUL_TLS_INSECURE_SKIP_VERIFY"},
		{name: "secret in env", environ: []string{"WEFT_CONSUL_TOKEN=s3cr3t"}, key: "consul.token", want: "(redacted)", source: "env WEFT_CONSUL_TOKEN"},
		{name: "flag over env", environ: []string{"WEFT_CONSUL_ADDRESS=e.example.org:5"}, flags: []string{"--consul-address=f.example.org:6"}, key: "consul.address", want: "f.example.org:6", source: "flag --consul-address"},
		{name: "empty flag is set", flags: []string{"--consul-catalog-prefix="}, key: "consul.catalog_prefix", want: "", source: "flag --consul-catalog-prefix"},
		{name: "list flag", flags: []string{"--wireguard-ports=5,6"}, key: "wireguard.ports", want: "5, 6", source: "flag --wireguard-ports"},
		{name: "list flag twice", flags: []string{"--pools=10.0.0.0/8", "--pools", "172.16.0.0/12"}, key: "pools", want: "10.0.0.0/8, 172.16.0.0/12", source: "flag --pools"},
		{name: "bool flag", flags: []string{"--dev"}, key: "dev", want: "true", source: "flag --dev"},
		{name: "flag like the default", flags: []string{"--log-level=info"}, key: "log.level", want: "info", source: "flag --log-level"},
		{name: "foreign variables", environ: []string{"CONSUL_HTTP_ADDR=x.example.org:1", "CONSUL_HTTP_TOKEN=x"}, key: "consul.address", want: "d.example.org:4", source: "file DIR/conf.d/30.hcl"},
	}
	dir := write(t, files)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options(dir)
			if tt.environ != nil {
				o.Environ = tt.environ
			}
			o.Flags = flags(t, tt.flags...)
			l := mustLoad(t, o)
			for _, s := range l.Settings() {
				if s.Key == tt.key {
					diff(t, tt.want, s.Text)
					diff(t, []string{tt.source}, lines(sourceError(s.Source), dir))
				}
			}
		})
	}
}

type textError string

func (e textError) Error() string { return string(e) }

func sourceError(s Source) error { return textError(s.String()) }

func TestPath(t *testing.T) {
	dir := write(t, map[string]string{
		"weft.yaml": "consul: {prefix: default}\n", "a.yml": "consul: {prefix: a}\n", "b.hcl": "consul { prefix = \"b\" }\n", "c.toml": "consul.prefix = \"c\"\n",
		"d/1.json": `{"consul": {"prefix": "d1"}}`, "d/2.json": `{"consul.prefix": "d2"}`, "e/README": "x",
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	tests := []struct {
		name, path, env, flag, want string
	}{
		{name: "default", want: "default"},
		{name: "option", path: at("a.yml"), env: configEnv + "=" + at("b.hcl"), flag: "--config=" + at("c.toml"), want: "a"},
		{name: "flag", env: configEnv + "=" + at("b.hcl"), flag: "--config=" + at("c.toml"), want: "c"},
		{name: "variable", env: configEnv + "=" + at("b.hcl"), want: "b"},
		{name: "directory", path: at("d"), want: "d2"},
		{name: "directory without files", path: at("e"), want: "weft"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options(dir)
			o.Path = tt.path
			o.Environ = append(o.Environ, tt.env)
			o.Flags = flags(t)
			if tt.flag != "" {
				o.Flags = flags(t, tt.flag)
			}
			diff(t, tt.want, mustLoad(t, o).Config.Consul.Prefix)
		})
	}
}

func TestAccepted(t *testing.T) {
	tests := []struct{ name, file, key, want string }{
		{"bare sections", "consul:\nlog:\n  level:\n", "log.level", "info"},
		{"only comments", "# nothing\n", "log.level", "info"},
		{"dotted key", "log.level: warn\n", "log.level", "warn"},
		{"trailing slash of a prefix", "consul: {prefix: weft/prod/}\n", "consul.prefix", "weft/prod"},
		{"empty catalog prefix", "consul: {catalog_prefix: ''}\n", "consul.catalog_prefix", ""},
		{"keepalive off", "wireguard: {keepalive: 0s}\n", "wireguard.keepalive", "0s"},
		{"no upstreams", "dns: {upstreams: []}\n", "dns.upstreams", ""},
		{"upstream with a port", "dns: {upstreams: ['[2001:db8::1]:5353', 192.0.2.1]}\n", "dns.upstreams", "[2001:db8::1]:5353, 192.0.2.1"},
		{"interface", "advertise: bond0.100\n", "advertise", "bond0.100"},
		{"IPv6 address", "advertise: 2001:db8::7\n", "advertise", "2001:db8::7"},
		{"unix socket", "consul: {address: 'unix:///run/consul.sock'}\n", "consul.address", "unix:///run/consul.sock"},
		{"IPv6 Consul", "consul: {address: 'https://[2001:db8::7]:8501'}\n", "consul.address", "https://[2001:db8::7]:8501"},
		{"byte order mark", "\xef\xbb\xbflog: {level: debug}\n", "log.level", "debug"},
		{"number as JSON float", "vxlan: {port: 8472.0}\n", "vxlan.port", "8472"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := mustLoad(t, options(write(t, map[string]string{"weft.yaml": tt.file})))
			for _, s := range l.Settings() {
				if s.Key == tt.key {
					diff(t, tt.want, s.Text)
				}
			}
		})
	}
}

func TestEndpoint(t *testing.T) {
	tests := []struct {
		name         string
		consul       Consul
		scheme, host string
	}{
		{"plain", Consul{Address: "192.0.2.1:8500"}, "http", "192.0.2.1:8500"},
		{"TLS implies https", Consul{Address: "192.0.2.1:8501", TLS: TLS{CAFile: "/ca.pem"}}, "https", "192.0.2.1:8501"},
		{"given", Consul{Address: "https://c.example.org:8501"}, "https", "c.example.org:8501"},
		{"socket", Consul{Address: "unix:///run/c.sock"}, "unix", "/run/c.sock"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			scheme, host := tt.consul.Endpoint()
			diff(t, []string{tt.scheme, tt.host}, []string{scheme, host})
		})
	}
}

// TestStub follows systemd-resolved's stub to the servers behind it, and only that.
func TestStub(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	real := file("real", "nameserver 192.0.2.53\nnameserver 2001:db8::53\n")
	empty := file("empty", "")
	for _, tc := range []struct {
		name, conf, real, want string
	}{
		{"stub", "nameserver 127.0.0.53\n", real, "192.0.2.53 2001:db8::53"},
		{"stub, its servers not readable", "nameserver 127.0.0.53\n", filepath.Join(dir, "none"), "127.0.0.53"},
		{"stub, without servers", "nameserver 127.0.0.53\n", empty, "127.0.0.53"},
		{"stub and another", "nameserver 127.0.0.53\nnameserver 192.0.2.1\n", real, "127.0.0.53 192.0.2.1"},
		{"no stub", "nameserver 192.0.2.1\n", real, "192.0.2.1"},
	} {
		got, err := nameservers(file("conf", tc.conf), tc.real)
		if err != nil || strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %v, %v, want %s", tc.name, got, err, tc.want)
		}
	}
}
