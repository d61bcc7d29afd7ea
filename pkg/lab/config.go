package lab

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// writeConfigs makes the directory of every host with its files.
func (l *Lab) writeConfigs(extra string) error {
	hosts := l.hostsFile()
	for _, h := range l.state.Hosts {
		own := filepath.Join(l.dir, h.Name)
		files := map[string][]byte{
			"etc/hosts": []byte(hosts),
			// The host outside is where a test may run a name server; nobody there answers "refused" at once.
			"etc/resolv.conf": []byte("nameserver " + numbered(Out, 250).Address.String() + "\noptions timeout:1 attempts:1\n"),
		}
		if err := os.MkdirAll(filepath.Join(own, "etc"), 0o755); err != nil {
			return fmt.Errorf("make directory of %s: %w", h.Name, err)
		}
		if err := l.daemonConfigs(h, extra, files); err != nil {
			return err
		}
		for name, data := range files {
			if err := writeFile(filepath.Join(own, name), data); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Lab) daemonConfigs(h Host, extra string, files map[string][]byte) error {
	if h.Name == Switch || h.Name == Out {
		return nil
	}
	data, err := json.MarshalIndent(l.consulConfig(h), "", "  ")
	if err != nil {
		return fmt.Errorf("encode consul configuration: %w", err)
	}
	files["consul.json"] = data
	if h.Name != Consul {
		files["weft.yaml"], err = l.agentConfig(h, extra)
	}
	return err
}

func (l *Lab) hostsFile() string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, h := range l.state.Hosts {
		if h.Address.IsValid() {
			fmt.Fprintf(&b, "%s %s\n", h.Address, h.Name)
		}
	}
	return b.String()
}

// consulConfig is a plain Consul agent, made quick: the timings are those for a LAN, halved or so, which suits hosts
// that are microseconds apart.
func (l *Lab) consulConfig(h Host) map[string]any {
	c := map[string]any{
		"node_name":            h.Name,
		"data_dir":             filepath.Join(l.dir, h.Name, "consul"),
		"bind_addr":            h.Address.String(),
		"client_addr":          "127.0.0.1",
		"log_level":            "INFO",
		"disable_update_check": true,
		"performance":          map[string]any{"raft_multiplier": 1},
		"connect":              map[string]any{"enabled": false},
		"ports":                map[string]any{"grpc": -1, "grpc_tls": -1},
		"gossip_lan":           map[string]any{"gossip_interval": "100ms", "probe_interval": "500ms", "probe_timeout": "250ms"},
	}
	if h.Name == Consul {
		c["server"], c["bootstrap_expect"] = true, 1
		c["client_addr"] = "0.0.0.0"
		c["ui_config"] = map[string]any{"enabled": true}
		return c
	}
	c["retry_join"] = []string{numbered(Consul, 200).Address.String()}
	c["retry_interval"] = "1s"
	return c
}

// agentConfig is a node's weft.yaml.
func (l *Lab) agentConfig(h Host, extra string) ([]byte, error) {
	c := map[string]any{
		"node_name": h.Name,
		"data_dir":  filepath.Join(l.dir, h.Name, "data"),
		"socket":    agentSocket,
		"advertise": h.Address.String(),
		"wireguard": map[string]any{"backend": cmp.Or(l.state.Backends[h.Name], l.state.Backend)},
		"consul":    map[string]any{"address": consulAddress},
	}
	var over map[string]any
	if err := yaml.Unmarshal([]byte(extra), &over); err != nil {
		return nil, fmt.Errorf("merge configuration: %w", err)
	}
	if err := merge(c, over); err != nil {
		return nil, fmt.Errorf("merge configuration: %w", err)
	}
	data, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode configuration of %s: %w", h.Name, err)
	}
	return data, nil
}

// merge lays over on base, section by section.
func merge(base, over map[string]any) error {
	for key, value := range over {
		section, isSection := value.(map[string]any)
		old, was := base[key].(map[string]any)
		if was != isSection && base[key] != nil {
			return errors.New(key + ": a section and a value of the same name")
		}
		if !was || !isSection {
			base[key] = value
			continue
		}
		base[key] = maps.Clone(old)
		if err := merge(base[key].(map[string]any), section); err != nil {
			return err
		}
	}
	return nil
}

const (
	agentSocket   = "/run/weft/weft.sock" // in each host's private /run
	consulAddress = "127.0.0.1:8500"
)
