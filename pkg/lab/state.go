package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// The hosts that are not nodes.
const (
	Switch = "switch" // holds the bridge; no address
	Consul = "consul" // runs the Consul server
	Out    = "out"    // stands for the world outside: a plain host
)

const stateFile = "lab.json"

// underlay is the benchmark range of RFC 2544, which no real network routes; deadGateway answers to nobody.
var (
	underlay    = netip.MustParsePrefix("198.18.0.0/24")
	deadGateway = netip.MustParseAddr("198.18.0.254")
)

// Host is a host of the lab.
type Host struct {
	Name string `json:"name"`
	// Address on the underlay; invalid for the switch.
	Address netip.Addr `json:"address,omitzero"`
	MAC     string     `json:"mac,omitempty"`
	// PID of the host's first process, as seen outside; 0 before it was started.
	PID int `json:"pid"`
	// Start is that process's start time in clock ticks since boot: PID and Start together are never reused.
	Start uint64 `json:"start"`
}

// state is what is kept in lab.json: enough to take the lab down, also a half-made one.
type state struct {
	Name     string            `json:"name"`
	Created  time.Time         `json:"created"`
	Nodes    int               `json:"nodes"`
	Backend  string            `json:"backend"`
	Backends map[string]string `json:"backends,omitempty"` // what differs, by node
	Weft     string            `json:"weft"`
	Consul   string            `json:"consul"`
	MTU      int               `json:"mtu"`
	NoAgents bool              `json:"noAgents,omitempty"`
	Ready    bool              `json:"ready"` // Up came to its end
	Hosts    []Host            `json:"hosts"`
}

func newState(o Options) state {
	s := state{Name: o.Name, Created: time.Now().UTC(), Nodes: o.Nodes, Backend: o.Backend, Backends: o.Backends,
		Weft: o.Weft, Consul: o.Consul, MTU: o.MTU, NoAgents: o.NoAgents, Hosts: []Host{{Name: Switch}}}
	s.Hosts = append(s.Hosts, numbered(Consul, 200), numbered(Out, 250))
	for k := 1; k <= o.Nodes; k++ {
		s.Hosts = append(s.Hosts, numbered(NodeName(k), byte(k)))
	}
	return s
}

// NodeName is the name of node k, from 1.
func NodeName(k int) string { return "n" + strconv.Itoa(k) }

// numbered gives a host the address that ends in k and a locally administered MAC made from it.
func numbered(name string, k byte) Host {
	a := underlay.Addr().As4()
	a[3] = k
	return Host{Name: name, Address: netip.AddrFrom4(a), MAC: fmt.Sprintf("02:00:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3])}
}

func (s *state) save(dir string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode lab state: %w", err)
	}
	return writeFile(filepath.Join(dir, stateFile), append(data, '\n'))
}

func loadState(dir string) (state, error) {
	var s state
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return s, fmt.Errorf("read lab state: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read lab state %s: %w", filepath.Join(dir, stateFile), err)
	}
	return s, nil
}

// writeFile replaces path at once, so that a reader or a crash never meets half a file. It does not make the
// directory: a lab that was taken down meanwhile must not come back.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// exists says whether path is there; other errors count as being there.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
