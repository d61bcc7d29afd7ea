package agent

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/pkg/config"
	"weft/pkg/ipam"
	"weft/pkg/ledger"
	"weft/pkg/overlay"
)

var addresses = cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty()}

func TestStateRoundTrip(t *testing.T) {
	dir := t.TempDir()
	s, err := loadState(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(newState("n1"), s, addresses); diff != "" {
		t.Errorf("no file is not a new state (-want +got):\n%s", diff)
	}
	s.Cluster, s.VTEP = "c1", netip.MustParseAddr("100.64.0.7")
	s.Endpoints["e1"] = overlay.LocalEndpoint{Endpoint: overlay.Endpoint{ID: "e1", Name: "web-1", Address: netip.MustParseAddr("10.0.0.2"),
		MAC: overlay.MAC{2, 0, 0, 0, 0, 1}, Services: []string{"web"}}, NetworkID: "0123456789ab", Network: "blue", IfName: "eth0", NetNS: "weft-e-1",
		SourcePath: "/run/netns/x", SourceInode: 7, PID: 42, PIDStart: 43, BootID: "b", Leaving: true}
	s.Routers["0123456789ab"] = overlay.MAC{2, 1, 1, 1, 1, 1}
	s.Legs["0123456789ab"] = 3
	s.Pools["blue"] = ipam.PoolState{NetworkID: "0123456789ab", Leases: []ipam.SavedLease{{Address: netip.MustParseAddr("10.0.0.2"), State: overlay.LeaseUsed}}}
	s.Published["blue"] = "0123456789ab"
	if err := s.save(dir); err != nil {
		t.Fatal(err)
	}
	again, err := loadState(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, again, addresses); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	info, err := os.Stat(filepath.Join(dir, "state.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A state that cannot be used is refused and left as it lies: a new one in its place would lose endpoints.
func TestStateRefused(t *testing.T) {
	for name, tc := range map[string]struct{ text, err string }{
		"of another node": {`{"format": 1, "node": "n2"}`, `belongs to node "n2", but this node is "n1": set node_name or another data_dir`},
		"newer format":    {`{"format": 2, "node": "n1"}`, "format 2 is not known to this version"},
		"older format":    {`{"format": 0, "node": "n1"}`, "format 0 is not known to this version"},
		"not JSON":        {`{"format": 1, "node": "n1"`, "move the file away"},
		"empty":           {"", "move the file away"},
		"other types":     {`{"format": 1, "node": "n1", "vtep": 7}`, "move the file away"},
		"bad address":     {`{"format": 1, "node": "n1", "vtep": "100.64.0"}`, "move the file away"},
		"bad MAC":         {`{"format": 1, "node": "n1", "routers": {"a": "02:00"}}`, "move the file away"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "state.json")
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := loadState(dir, "n1")
			if s != nil || err == nil || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "\n") {
				t.Errorf("loadState = %v, %v, want one line with %q", s, err, tc.err)
			}
			if got, err := os.ReadFile(file); err != nil || string(got) != tc.text {
				t.Errorf("the file is now %q, %v", got, err)
			}
		})
	}
}

func TestStateUnreadable(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "state.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if s, err := loadState(dir, "n1"); s != nil || err == nil {
		t.Errorf("loadState = %v, %v: what cannot be read is not absent", s, err)
	}
	if err := newState("n1").save(filepath.Join(dir, "nowhere")); err == nil || !strings.HasPrefix(err.Error(), "write local state: ") {
		t.Errorf("save = %v", err)
	}
}

func TestLedgerFile(t *testing.T) {
	dir := t.TempDir()
	if l, err := loadLedger(dir, ledger.Policy{}, slog.New(slog.DiscardHandler)); l != nil || err != nil {
		t.Errorf("no file: %v, %v", l, err)
	}
	a := &Agent{opt: Options{Config: config.Config{DataDir: dir}}, ledger: ledger.New("c1"), unsaved: true}
	if err := a.keepLedger(); err != nil || a.unsaved {
		t.Fatal(err)
	}
	if l, err := loadLedger(dir, ledger.Policy{}, slog.New(slog.DiscardHandler)); err != nil || l.Cluster() != "c1" {
		t.Errorf("after a restart: %v, %v", l, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ledger.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := loadLedger(dir, ledger.Policy{}, slog.New(slog.DiscardHandler)); l != nil || err == nil {
		t.Errorf("a broken file: %v, %v", l, err)
	}
}

func TestLeg(t *testing.T) {
	for _, tc := range []struct {
		pool          string
		i             int
		host, network string // empty: beyond the pool
	}{
		{"169.254.64.0/18", 0, "169.254.64.0", "169.254.64.1"},
		{"169.254.64.0/18", 1, "169.254.64.2", "169.254.64.3"},
		{"169.254.64.0/18", 128, "169.254.65.0", "169.254.65.1"},
		{"169.254.64.0/18", 8191, "169.254.127.254", "169.254.127.255"},
		{"169.254.64.0/18", 8192, "", ""},
		{"169.254.64.0/18", -1, "", ""},
		{"169.254.64.9/18", 0, "169.254.64.0", "169.254.64.1"}, // host bits do not count
		{"10.0.0.0/30", 1, "10.0.0.2", "10.0.0.3"},
		{"10.0.0.0/30", 2, "", ""},
		{"10.0.0.4/31", 0, "10.0.0.4", "10.0.0.5"},
		{"10.0.0.4/31", 1, "", ""},
		{"10.0.0.4/32", 0, "", ""}, // no pair
		{"255.255.255.254/31", 0, "255.255.255.254", "255.255.255.255"},
		{"255.255.255.254/31", 1, "", ""},
	} {
		l, ok := leg(netip.MustParsePrefix(tc.pool), tc.i)
		if ok != (tc.host != "") || ok && (l.Host.String() != tc.host || l.Network.String() != tc.network) {
			t.Errorf("leg(%s, %d) = %s and %s, %v, want %s and %s", tc.pool, tc.i, l.Host, l.Network, ok, tc.host, tc.network)
		}
	}
	// No two legs of a pool share an address.
	pool, seen := netip.MustParsePrefix("169.254.64.0/18"), map[netip.Addr]bool{}
	for i := 0; ; i++ {
		l, ok := leg(pool, i)
		if !ok {
			break
		}
		if seen[l.Host] || seen[l.Network] || !pool.Contains(l.Host) {
			t.Fatalf("leg %d is %v", i, l)
		}
		seen[l.Host], seen[l.Network] = true, true
	}
	if len(seen) != 1<<14 {
		t.Errorf("%d addresses of a /18 are used", len(seen))
	}
}

// FuzzLoadState: no file makes loadState panic, and what it takes can be written and read again.
func FuzzLoadState(f *testing.F) {
	f.Add([]byte(`{"format": 1, "node": "n1", "vtep": "100.64.0.1", "endpoints": {"e1": {"id": "e1"}}, "legs": {"a": 1}}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "state.json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := loadState(dir, "n1")
		if err != nil {
			return
		}
		if err := s.save(dir); err != nil {
			t.Fatal(err)
		}
		again, err := loadState(dir, "n1")
		if err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(s)
		if b, _ := json.Marshal(again); string(a) != string(b) {
			t.Errorf("%s became %s", a, b)
		}
	})
}
