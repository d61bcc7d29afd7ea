package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"weft/keys/store"
	"weft/pkg/ipam"
	"weft/pkg/ledger"
	"weft/pkg/overlay"
	"weft/pkg/rotate"
)

// localState is what this node alone knows and must know again after a restart, with Consul away: data_dir/state.json.
// It is guarded by Agent.mu and written after every change, before the change takes effect elsewhere.
type localState struct {
	Format  int        `json:"format"`
	Node    string     `json:"node"`
	Cluster string     `json:"cluster,omitempty"`
	VTEP    netip.Addr `json:"vtep,omitzero"`
	// Keys is where this node stands with its generations of WireGuard keys.
	Keys rotate.State `json:"keys"`
	// Owned says that this node's own record has stood in Consul: the name is its own, whatever stands there later.
	Owned bool `json:"owned,omitempty"`
	// Datacenter is that of the Consul agent, as it said when this node joined last.
	Datacenter string `json:"datacenter,omitempty"`
	// Endpoints holds the intents of attach, by id.
	Endpoints map[overlay.EndpointID]overlay.LocalEndpoint `json:"endpoints"`
	// Routers and Legs are sticky per network.
	Routers map[overlay.NetworkID]overlay.MAC `json:"routers"`
	// Legs numbers the /31 in the egress pool.
	Legs map[overlay.NetworkID]int `json:"legs"`
	// Pools is what the address pools know, by network name.
	Pools map[string]ipam.PoolState `json:"pools"`
	// Published says for which networks an endpoint record of ours stands in Consul, by name.
	Published map[string]overlay.NetworkID `json:"published"`
}

const stateFormat = 1

func newState(node string) *localState {
	s := &localState{Format: stateFormat, Node: node}
	s.fill()
	return s
}

// fill makes the maps that are nil.
func (s *localState) fill() {
	if len(s.Keys.Live) == 0 { // also of a version that never changed keys
		s.Keys = rotate.First(time.Time{}) // the agent sets the time
	}
	if s.Endpoints == nil {
		s.Endpoints = map[overlay.EndpointID]overlay.LocalEndpoint{}
	}
	if s.Routers == nil {
		s.Routers = map[overlay.NetworkID]overlay.MAC{}
	}
	if s.Legs == nil {
		s.Legs = map[overlay.NetworkID]int{}
	}
	if s.Pools == nil {
		s.Pools = map[string]ipam.PoolState{}
	}
	if s.Published == nil {
		s.Published = map[string]overlay.NetworkID{}
	}
}

// loadState reads dir/state.json; an absent file is a new state, a file that cannot be used is an error: it is never
// replaced by an empty one.
func loadState(dir, node string) (*localState, error) {
	path := filepath.Join(dir, "state.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return newState(node), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read local state: %w", err)
	}
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("read local state %s: %w: move the file away to start anew", path, err)
	}
	s := newState(node)
	s.Format = head.Format
	if head.Format == stateFormat {
		s.Node = ""
		if err := json.Unmarshal(data, s); err != nil {
			return nil, fmt.Errorf("read local state %s: %w: move the file away to start anew", path, err)
		}
		s.fill()
		if !s.Keys.Valid() {
			return nil, fmt.Errorf("read local state %s: key generations %v cannot be: move the file away to start anew", path, s.Keys.Live)
		}
	}
	if s.Format != stateFormat {
		return nil, fmt.Errorf("read local state %s: format %d is not known to this version (it writes %d): use the version that wrote it", path, s.Format, stateFormat)
	}
	if s.Node != node {
		return nil, fmt.Errorf("data_dir %s belongs to node %q, but this node is %q: set node_name or another data_dir", dir, s.Node, node)
	}
	return s, nil
}

func (s *localState) save(dir string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write local state: %w", err)
	}
	if err := store.WriteFile(filepath.Join(dir, "state.json"), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write local state: %w", err)
	}
	return nil
}

// loadLedger reads dir/ledger.json, the records accepted so far; nil without error when there is none. A file that cannot
// be read is an error, because pins and the highest revisions seen would be lost with it; a single record that does not
// verify is only left out.
func loadLedger(dir string, policy ledger.Policy, log *slog.Logger) (*ledger.Ledger, error) {
	path := ledgerPath(dir)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read accepted records: %w", err)
	}
	l, err := ledger.LoadWith(data, policy)
	if l == nil {
		return nil, fmt.Errorf("%w: %s is damaged: restore it from a backup, or move it away to trust Consul's records anew", err, path)
	}
	if err != nil {
		log.Warn("some accepted records are not used any more", "file", path, "err", err)
	}
	return l, nil
}

func ledgerPath(dir string) string { return filepath.Join(dir, "ledger.json") }

// leg is the pair of addresses of leg number i of pool; ok is false beyond its end.
func leg(pool netip.Prefix, i int) (overlay.Leg, bool) {
	a := pool.Masked().Addr()
	b := a.As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	n += uint32(2 * i)
	host := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	l := overlay.Leg{Host: host, Network: host.Next()}
	return l, pool.Contains(l.Network)
}
