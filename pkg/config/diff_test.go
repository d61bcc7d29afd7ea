package config

import "testing"

func TestDiff(t *testing.T) {
	load := func(environ ...string) Config {
		o := options(t.TempDir())
		o.Environ = environ
		return mustLoad(t, o).Config
	}
	old := load("WEFT_CONSUL_TOKEN=a")
	tests := []struct {
		name            string
		new             Config
		reload, restart []Change
	}{
		{name: "same", new: load("WEFT_CONSUL_TOKEN=a")},
		{
			name: "reloadable",
			new: load("WEFT_CONSUL_TOKEN=a", "WEFT_LOG_LEVEL=debug", "WEFT_DNS_UPSTREAMS=192.0.2.1", "WEFT_WIREGUARD_KEEPALIVE=0s", "WEFT_POOLS=10.0.0.0/9,172.16.0.0/12",
				"WEFT_POOL_SIZE=26", "WEFT_IPAM_QUARANTINE=5m"),
			reload: []Change{
				{"wireguard.keepalive", "25s", "0s"},
				{"pools", "10.0.0.0/8", "10.0.0.0/9, 172.16.0.0/12"},
				{"pool_size", "24", "26"},
				{"ipam.quarantine", "1m0s", "5m0s"},
				{"dns.upstreams", "", "192.0.2.1"},
				{"log.level", "info", "debug"},
			},
		},
		{
			name:    "restart",
			new:     load("WEFT_CONSUL_TOKEN=b", "WEFT_NODE_NAME=host2", "WEFT_LOG_FORMAT=json"),
			restart: []Change{{"node_name", "host1", "host2"}, {"consul.token", redacted, redacted}, {"log.format", "text", "json"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reload, restart := Diff(old, tt.new)
			diff(t, tt.reload, reload)
			diff(t, tt.restart, restart)
		})
	}
}

func TestNearest(t *testing.T) {
	tests := []struct{ a, b string }{{"", ""}, {"abc", ""}, {"kitten", "sitting"}, {"flaw", "lawn"}, {"wiregaurd", "wireguard"}, {"same", "same"}}
	for _, tt := range tests {
		if got, want := distance(tt.a, tt.b), slowDistance(tt.a, tt.b); got != want || got != distance(tt.b, tt.a) {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, want)
		}
	}
	// Each key is nearest to itself with one letter changed, lost or doubled.
	for _, s := range settings {
		for i := range s.name {
			for _, typo := range []string{s.name[:i] + "~" + s.name[i+1:], s.name[:i] + s.name[i+1:], s.name[:i+1] + s.name[i:]} {
				if got := nearestKey(typo); got != s.name && distance(typo, got) > 1 {
					t.Errorf("nearest of %q: %q, want %q", typo, got, s.name)
				}
			}
		}
	}
}

// slowDistance is the definition.
func slowDistance(a, b string) int {
	if a == "" || b == "" {
		return len(a) + len(b)
	}
	cost := 1
	if a[0] == b[0] {
		cost = 0
	}
	return min(slowDistance(a[1:], b[1:])+cost, slowDistance(a[1:], b)+1, slowDistance(a, b[1:])+1)
}
