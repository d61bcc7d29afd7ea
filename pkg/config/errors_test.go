package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const keyList = "node_name, data_dir, socket, advertise, wireguard, trust, join_token_file, egress, vxlan, pools, pool_size, vtep_pool, ipam, dns, cni, consul, log"

func TestErrors(t *testing.T) {
	type files = map[string]string
	yaml := func(s string) files { return files{"weft.yaml": s} }
	tests := []struct {
		name    string
		files   files
		environ []string
		want    []string
	}{
		{name: "unknown key", files: yaml("consul: {adress: x}"), want: []string{"DIR/weft.yaml: consul.adress: unknown key; did you mean consul.address?"}},
		{name: "unknown section", files: yaml("wiregaurd: {ports: [1, 2]}"), want: []string{"DIR/weft.yaml: wiregaurd.ports: unknown key; did you mean wireguard.ports?"}},
		{name: "wrong case", files: yaml("Node_Name: x"), want: []string{"DIR/weft.yaml: Node_Name: unknown key; did you mean node_name?"}},
		{name: "key without its section", files: yaml("level: x"), want: []string{"DIR/weft.yaml: level: unknown key; did you mean log.level?"}},
		{name: "camel case", files: yaml("consul: {tokenFile: x}"), want: []string{"DIR/weft.yaml: consul.tokenFile: unknown key; did you mean consul.token_file?"}},
		{name: "unknown key of a section", files: yaml("log: {destination: x}"), want: []string{"DIR/weft.yaml: log.destination: unknown key; log has level, format"}},
		{name: "nothing like it", files: yaml("frobnicate: 1"), want: []string{"DIR/weft.yaml: frobnicate: unknown key; the keys are " + keyList}},
		{name: "unknown empty section", files: yaml("frobnicate: {}"), want: []string{"DIR/weft.yaml: frobnicate: unknown key; the keys are " + keyList}},
		{name: "unknown null", files: yaml("frobnicate:"), want: []string{"DIR/weft.yaml: frobnicate: unknown key; the keys are " + keyList}},
		{name: "key that is a number", files: yaml("consul: {1: x}"), want: []string{"DIR/weft.yaml: consul.1: unknown key; consul has address, token, token_file, datacenter, prefix, catalog_prefix, tls, binary"}},
		{name: "line end in a key", files: yaml(`"a\nb\e[31m": 1`), want: []string{"DIR/weft.yaml: a b [31m: unknown key; the keys are " + keyList}},
		{name: "text for a section", files: yaml("consul: 127.0.0.1:8500"), want: []string{"DIR/weft.yaml: consul: want a section with address, token, token_file, datacenter, prefix, catalog_prefix, tls or binary, not text"}},
		{name: "section for text", files: yaml("node_name: {a: b}"), want: []string{"DIR/weft.yaml: node_name: want text, not a section"}},
		{name: "number for text", files: yaml("node_name: 7"), want: []string{"DIR/weft.yaml: node_name: want text, not a number (put it in quotes)"}},
		{name: "number for a path", files: yaml("data_dir: 7"), want: []string{"DIR/weft.yaml: data_dir: want an absolute path, not a number"}},
		{name: "number for a duration", files: yaml("wireguard: {keepalive: 25}"), want: []string{`DIR/weft.yaml: wireguard.keepalive: want a duration as "25s", not a number`}},
		{name: "text for a number", files: yaml("vxlan: {port: '4789'}"), want: []string{"DIR/weft.yaml: vxlan.port: want a port number, not text"}},
		{name: "text for truth", files: yaml("consul: {tls: {insecure_skip_verify: 'yes'}}"), want: []string{"DIR/weft.yaml: consul.tls.insecure_skip_verify: want true or false, not text"}},
		{name: "text for a list", files: yaml("pools: 10.0.0.0/8"), want: []string{"DIR/weft.yaml: pools: want a list of IPv4 prefixes, not text"}},
		{name: "list for text", files: yaml("socket: [/a]"), want: []string{"DIR/weft.yaml: socket: want an absolute path, not a list"}},
		{name: "wrong item", files: yaml("wireguard: {ports: [1, x]}"), want: []string{"DIR/weft.yaml: wireguard.ports: item 2: want port numbers, not text"}},
		{name: "date", files: yaml("node_name: 2026-01-01"), want: []string{"DIR/weft.yaml: node_name: want text, not a date"}},
		{name: "choice", files: yaml("wireguard: {backend: kernal}"), want: []string{`DIR/weft.yaml: wireguard.backend: "kernal" is not auto, kernel or engine; did you mean kernel?`}},
		{name: "choice far off", files: yaml("log: {format: xml-like}"), want: []string{`DIR/weft.yaml: log.format: "xml-like" is not text or json`}},
		{name: "choice of the wrong type", files: yaml("log: {level: 3}"), want: []string{"DIR/weft.yaml: log.level: want debug, info, warn or error, not a number"}},
		{name: "level", files: yaml("log: {level: INFO+2}"), want: []string{`DIR/weft.yaml: log.level: "INFO+2" is not debug, info, warn or error; did you mean info?`}},
		{name: "prefix", files: yaml("vtep_pool: 100.64.0.0/99"), want: []string{`DIR/weft.yaml: vtep_pool: "100.64.0.0/99" is not an IPv4 prefix as "10.0.0.0/8"`}},
		{name: "IPv6 prefix", files: yaml("pools: ['fd00::/8']"), want: []string{`DIR/weft.yaml: pools: "fd00::/8" is not an IPv4 prefix as "10.0.0.0/8"`}},
		{name: "host bits", files: yaml("pools: [10.1.2.3/16]"), want: []string{`DIR/weft.yaml: pools: "10.1.2.3/16" has host bits set; did you mean 10.1.0.0/16?`}},
		{name: "tiny pool", files: yaml("egress: {pool: 192.0.2.0/32}"), want: []string{`DIR/weft.yaml: egress.pool: "192.0.2.0/32" is too small: at most /30`}},
		{name: "port range", files: yaml("vxlan: {port: 70000}"), want: []string{`DIR/weft.yaml: vxlan.port: "70000" is not a port number from 1 to 65535`}},
		{name: "port zero", files: yaml("vxlan: {port: 0}"), want: []string{`DIR/weft.yaml: vxlan.port: "0" is not a port number from 1 to 65535`}},
		{name: "port fraction", files: yaml("vxlan: {port: 1.5}"), want: []string{`DIR/weft.yaml: vxlan.port: "1.5" is not a port number from 1 to 65535`}},
		{name: "pool size", files: yaml("pool_size: 31"), want: []string{`DIR/weft.yaml: pool_size: "31" is not a whole number from 16 to 29`}},
		{name: "duration", files: yaml("ipam: {quarantine: soon}"), want: []string{`DIR/weft.yaml: ipam.quarantine: "soon" is not a duration as "25s" or "1m30s"`}},
		{name: "duration range", files: yaml("ipam: {quarantine: -1s}"), want: []string{`DIR/weft.yaml: ipam.quarantine: "-1s" is not between 0s and 24h0m0s`}},
		{name: "duration unit", files: yaml("wireguard: {keepalive: 1500ms}"), want: []string{`DIR/weft.yaml: wireguard.keepalive: "1500ms" is not a multiple of 1s`}},
		{name: "node name", files: yaml("node_name: a/b"), want: []string{`DIR/weft.yaml: node_name: "a/b" is not a node name: at most 64 letters, digits, '.', '_' and '-', with a letter or digit at both ends`}},
		{name: "relative path", files: yaml("data_dir: weft"), want: []string{`DIR/weft.yaml: data_dir: "weft" is not an absolute path`}},
		{name: "relative optional path", files: yaml("consul: {token_file: weft}"), want: []string{`DIR/weft.yaml: consul.token_file: "weft" is not an absolute path`}},
		{name: "relative socket", files: yaml("socket: weft"), want: []string{`DIR/weft.yaml: socket: "weft" is not an absolute path`}},
		{name: "long socket", files: yaml("socket: /" + strings.Repeat("x", 107)), want: []string{`DIR/weft.yaml: socket: "/` + strings.Repeat("x", 107) + `" is too long for a socket: at most 107 bytes`}},
		{name: "advertise", files: yaml("advertise: not an interface"), want: []string{`DIR/weft.yaml: advertise: "not an interface" is not an address or an interface name`}},
		{name: "advertise nowhere", files: yaml("advertise: 0.0.0.0"), want: []string{`DIR/weft.yaml: advertise: "0.0.0.0" is not an address of one host`}},
		{name: "domain", files: yaml("dns: {domain: .weft.}"), want: []string{`DIR/weft.yaml: dns.domain: ".weft." is not a domain name: lower-case letters, digits, '-' and single dots between them`}},
		{name: "upstream", files: yaml("dns: {upstreams: [dns.example.org]}"), want: []string{`DIR/weft.yaml: dns.upstreams: "dns.example.org" is not an address as "192.0.2.53" or "192.0.2.53:5353"`}},
		{name: "upstream nowhere", files: yaml("dns: {upstreams: ['192.0.2.1:0']}"), want: []string{`DIR/weft.yaml: dns.upstreams: "192.0.2.1:0" is not an address that can be asked`}},
		{name: "KV prefix", files: yaml("consul: {prefix: /weft}"), want: []string{`DIR/weft.yaml: consul.prefix: "/weft" is not a key prefix as "weft": letters, digits, '.', '_', '-' and single slashes between them`}},
		{name: "catalog prefix", files: yaml("consul: {catalog_prefix: Weft_}"), want: []string{`DIR/weft.yaml: consul.catalog_prefix: "Weft_" is not the start of a service name as "weft-": at most 31 lower-case letters, digits and '-'`}},
		{name: "Consul without a port", files: yaml("consul: {address: consul.example.org}"), want: []string{`DIR/weft.yaml: consul.address: "consul.example.org" is not an address as "127.0.0.1:8500", "https://consul.example.org:8501" or "unix:///run/consul.sock"`}},
		{name: "Consul without a host", files: yaml("consul: {address: ':8500'}"), want: []string{`DIR/weft.yaml: consul.address: ":8500" has no usable host before the port`}},
		{name: "Consul scheme", files: yaml("consul: {address: 'tcp://127.0.0.1:8500'}"), want: []string{`DIR/weft.yaml: consul.address: "tcp://127.0.0.1:8500" has the scheme "tcp", which is not http, https or unix`}},
		{name: "Consul socket", files: yaml("consul: {address: 'unix://x'}"), want: []string{`DIR/weft.yaml: consul.address: "unix://x" is not a socket as "unix:///run/consul.sock"`}},
		{name: "datacenter", files: yaml("consul: {datacenter: a.b}"), want: []string{`DIR/weft.yaml: consul.datacenter: "a.b" is not a datacenter's name: letters, digits, '-' and '_'`}},
		{name: "server name", files: yaml("consul: {tls: {server_name: 'a b'}}"), want: []string{`DIR/weft.yaml: consul.tls.server_name: "a b" is not a host name`}},
		{name: "binary", files: yaml("consul: {binary: ''}"), want: []string{`DIR/weft.yaml: consul.binary: "" is not a program`}},
		{name: "secret of the wrong type", files: yaml("consul: {token: 12345678}"), want: []string{"DIR/weft.yaml: consul.token: want text, not a number (put it in quotes)"}},
		{name: "secret with space", files: yaml("consul: {token: 's3cr3t '}"), want: []string{"DIR/weft.yaml: consul.token: the value has space at its ends or line ends in it"}},
		{name: "flag only", files: yaml("dev: true"), environ: []string{"WEFT_DEV=true"}, want: []string{"DIR/weft.yaml: dev: is only a flag: weft agent --dev", "WEFT_DEV: dev: is only a flag: weft agent --dev"}},
		{name: "dotted and nested", files: yaml("log: {level: info}\nlog.level: warn"), want: []string{"DIR/weft.yaml: log.level: is set twice"}},

		{name: "one port", files: yaml("wireguard: {ports: [1]}"), want: []string{"DIR/weft.yaml: wireguard.ports: want exactly 2 port numbers, not 1: a new key generation listens beside the old one"}},
		{name: "same ports", files: yaml("wireguard: {ports: [1, 1]}"), want: []string{"DIR/weft.yaml: wireguard.ports: want 2 different port numbers, not 1 twice"}},
		{name: "VXLAN on a WireGuard port", files: yaml("wireguard: {ports: [1, 4789]}"), want: []string{"DIR/weft.yaml: wireguard.ports: vxlan.port and wireguard.ports both use port 4789"}},
		{name: "VXLAN on a default WireGuard port", environ: []string{"WEFT_VXLAN_PORT=51820"}, want: []string{"WEFT_VXLAN_PORT: vxlan.port: vxlan.port and wireguard.ports both use port 51820"}},
		{name: "no pool", files: yaml("pools: []"), want: []string{"DIR/weft.yaml: pools: want at least one range"}},
		{name: "pools overlap", files: yaml("pools: [10.0.0.0/8, 10.1.0.0/16]"), want: []string{"DIR/weft.yaml: pools: 10.1.0.0/16 overlaps 10.0.0.0/8"}},
		{name: "pool below pool_size", files: yaml("pools: [10.0.0.0/25]"), want: []string{"DIR/weft.yaml: pools: pool 10.0.0.0/25 is smaller than one subnet of pool_size 24"}},
		{name: "pool over VTEPs", files: yaml("pools: [100.64.0.0/10]"), want: []string{"DIR/weft.yaml: pools: 100.64.0.0/10 overlaps vtep_pool 100.64.0.0/16"}},
		{name: "VTEPs over pool", files: yaml("vtep_pool: 10.9.0.0/16"), want: []string{"DIR/weft.yaml: vtep_pool: 10.9.0.0/16 overlaps pools 10.0.0.0/8"}},
		{name: "egress over pool", files: yaml("egress: {pool: 10.9.0.0/16}"), want: []string{"DIR/weft.yaml: egress.pool: 10.9.0.0/16 overlaps pools 10.0.0.0/8"}},
		{name: "egress over VTEPs", files: yaml("egress: {pool: 100.64.0.0/16}"), want: []string{"DIR/weft.yaml: egress.pool: 100.64.0.0/16 overlaps vtep_pool 100.64.0.0/16"}},
		{name: "two tokens", files: yaml("consul: {token: s3cr3t}"), environ: []string{"WEFT_CONSUL_TOKEN_FILE=/t"}, want: []string{"WEFT_CONSUL_TOKEN_FILE: consul.token_file: consul.token and consul.token_file are both set; keep one"}},
		{name: "certificate alone", files: yaml("consul: {tls: {cert_file: /c}}"), want: []string{"DIR/weft.yaml: consul.tls.cert_file: needs consul.tls.key_file"}},
		{name: "key alone", files: yaml("consul: {tls: {key_file: /c}}"), want: []string{"DIR/weft.yaml: consul.tls.key_file: needs consul.tls.cert_file"}},
		{name: "TLS over http", files: yaml("consul: {address: 'http://127.0.0.1:8500', tls: {ca_file: /c}}"), want: []string{`DIR/weft.yaml: consul.address: consul.tls is set, but "http://127.0.0.1:8500" is not https`}},

		{name: "bad variable", environ: []string{"WEFT_LOG_LEVEL=loud", "WEFT_POOLS=10.0.0.0/8,x"}, want: []string{`WEFT_POOLS: pools: "x" is not an IPv4 prefix as "10.0.0.0/8"`, `WEFT_LOG_LEVEL: log.level: "loud" is not debug, info, warn or error`}},
		{name: "truth in a variable", environ: []string{"WEFT_CONSUL_TLS_INSECURE_SKIP_VERIFY=on"}, want: []string{`WEFT_CONSUL_TLS_INSECURE_SKIP_VERIFY: consul.tls.insecure_skip_verify: "on" is not true or false`}},
		{name: "misspelt variable", environ: []string{"WEFT_CONSUL_ADRESS=x"}, want: []string{"WEFT_CONSUL_ADRESS: sets nothing; did you mean WEFT_CONSUL_ADDRESS?"}},

		{name: "YAML syntax", files: yaml("a: 1\nb: c: d"), want: []string{"DIR/weft.yaml: parse yaml: line 2: mapping values are not allowed in this context"}},
		{name: "YAML twice", files: yaml("log: {level: info}\nlog: {level: warn}"), want: []string{`DIR/weft.yaml: parse yaml: unmarshal errors: line 2: mapping key "log" already defined at line 1`}},
		{name: "YAML documents", files: yaml("log: {level: info}\n---\nlog: {level: warn}"), want: []string{`DIR/weft.yaml: parse yaml: more than one document ("---")`}},
		{name: "YAML text", files: yaml("s3cr3t"), want: []string{"DIR/weft.yaml: parse yaml: the whole file is text; want keys and values"}},
		{name: "JSON syntax", files: files{"weft.json": "{\n\"log\": x}"}, want: []string{"DIR/weft.json: parse json: line 2: invalid character 'x' looking for beginning of value"}},
		{name: "JSON twice", files: files{"weft.json": "{\"log\": {},\n\"log\": {}}"}, want: []string{`DIR/weft.json: parse json: line 2: "log" is set twice`}},
		{name: "JSON empty", files: files{"weft.json": ""}, want: []string{"DIR/weft.json: parse json: line 1: ends too early"}},
		{name: "JSON more", files: files{"weft.json": "{} {}"}, want: []string{"DIR/weft.json: parse json: line 1: more text after the closing brace"}},
		{name: "JSON list", files: files{"weft.json": "[1]"}, want: []string{"DIR/weft.json: parse json: the whole file is a list; want keys and values"}},
		{name: "TOML syntax", files: files{"weft.toml": "[log]\nlevel = warn\n"}, want: []string{"DIR/weft.toml: parse toml: line 2, column 9: incomplete number"}},
		{name: "TOML twice", files: files{"weft.toml": "[log]\n[log]\n"}, want: []string{"DIR/weft.toml: parse toml: table log already exists"}},
		{name: "HCL syntax", files: files{"weft.hcl": "consul {\n token = s3cr3t\n}\n"}, want: []string{"DIR/weft.hcl: parse hcl: line 2, column 10: syntax error (is text in double quotes?)"}},
		{name: "HCL twice", files: files{"weft.hcl": "log { level = \"info\" }\nlog { level = \"warn\" }\n"}, want: []string{`DIR/weft.hcl: parse hcl: line 2: "level" is set twice`}},
		{name: "HCL block and value", files: files{"weft.hcl": "log = 1\nlog { level = \"warn\" }\n"}, want: []string{`DIR/weft.hcl: parse hcl: line 2: "log" is set twice`}},
		{name: "HCL list of blocks", files: files{"weft.hcl": "log = [{ level = \"warn\" }]\n"}, want: []string{"DIR/weft.hcl: log: want a section with level or format, not a list"}},
		{name: "two files", files: files{"weft.hcl": "", "weft.toml": ""}, want: []string{"DIR/weft.hcl: DIR/weft.toml is there as well; keep one of them, or use DIR/conf.d"}},
		{name: "too large", files: yaml(strings.Repeat("#", maxFile+1)), want: []string{"DIR/weft.yaml: is larger than 1048576 bytes"}},
		{
			name:    "everything at once, in the order of the places, errors of beaten values too",
			files:   files{"weft.yaml": "bogus_key_x: 1\nvxlan: {port: x}\nconsul: {prefix: ''}", "conf.d/a.toml": "pool_size = 99\n[vxlan]\nport = 51820\n", "conf.d/b.json": "{"},
			environ: []string{"WEFT_CONSUL_PREFIX=ok", "WEFT_LOG_FORMAT=xml"},
			want: []string{
				"DIR/weft.yaml: bogus_key_x: unknown key; the keys are " + keyList,
				`DIR/weft.yaml: consul.prefix: "" is not a key prefix as "weft": letters, digits, '.', '_', '-' and single slashes between them`,
				"DIR/weft.yaml: vxlan.port: want a port number, not text",
				`DIR/conf.d/a.toml: pool_size: "99" is not a whole number from 16 to 29`,
				"DIR/conf.d/b.json: parse json: line 1: ends too early",
				`WEFT_LOG_FORMAT: log.format: "xml" is not text or json`,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, tt.files)
			o := options(dir)
			if tt.environ != nil {
				o.Environ = tt.environ
			}
			l, err := Load(o)
			if l != nil {
				t.Error("a result beside the error")
			}
			diff(t, tt.want, lines(err, dir))
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("a secret in %q", err)
			}
		})
	}
}

func TestFileErrors(t *testing.T) {
	dir := write(t, map[string]string{"weft.conf": "", "broken/x.yaml/y": ""})
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling.yaml")); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path, want string
		is               error
	}{
		{"missing", "none.yaml", "DIR/none.yaml: stat: no such file or directory", os.ErrNotExist},
		{"dangling", "dangling.yaml", "DIR/dangling.yaml: stat: no such file or directory", os.ErrNotExist},
		{"type", "weft.conf", `DIR/weft.conf: unknown file type ".conf"; the name must end in .yaml, .yml, .toml, .json or .hcl`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options(dir)
			o.Path = filepath.Join(dir, tt.path)
			_, err := Load(o)
			diff(t, []string{tt.want}, lines(err, dir))
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v is not %v", err, tt.is)
			}
		})
	}
	o := options(dir)
	o.Environ = []string{configEnv + "=" + filepath.Join(dir, "none.yaml")}
	_, err := Load(o)
	diff(t, []string{"DIR/none.yaml: stat: no such file or directory (named by env WEFT_CONFIG)"}, lines(err, dir))
}

func TestHostNameErrors(t *testing.T) {
	o := options(t.TempDir())
	o.hostname = func() (string, error) { return "bad name", nil }
	_, err := Load(o)
	diff(t, []string{`default (host name): node_name: "bad name" is not a node name: at most 64 letters, digits, '.', '_' and '-', with a letter or digit at both ends`}, lines(err, "/nowhere"))
	o.hostname = func() (string, error) { return "", errors.New("no /proc") }
	_, err = Load(o)
	diff(t, []string{"default (host name): node_name: read host name: no /proc"}, lines(err, "/nowhere"))
}
