package plan

import (
	"slices"
	"strings"
	"testing"

	"weft/pkg/kstate"
)

// TestOlderLeaseWins: of two nodes with one address, or one MAC, the one with the older lease has it, whatever their
// names; without leases names decide; this node keeps its own.
func TestOlderLeaseWins(t *testing.T) {
	for name, tc := range map[string]struct {
		sameMAC bool
		n2, n3  uint64 // CreateIndex of the lease, 0 for none
		loser   string
	}{
		"n3 is older":                {false, 20, 10, "n2"},
		"n2 is older":                {false, 10, 20, "n3"},
		"only n3 has a lease":        {false, 0, 30, "n2"},
		"none has":                   {false, 0, 0, "n3"},
		"one MAC, n3 is older":       {true, 20, 10, "n2"},
		"one MAC, only n2 has lease": {true, 20, 0, "n3"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(3)
			n := w.network(1, testNetwork(1, "net", true))
			w.local(n, testEndpoint(1, 1, "10.0.1.2"))
			e2, e3 := testEndpoint(2, 1, "10.0.1.9"), testEndpoint(3, 1, "10.0.1.9")
			if tc.sameMAC {
				e3.Address, e3.MAC = addr("10.0.1.10"), e2.MAC
			}
			w.remote(2, n, 1, e2)
			w.remote(3, n, 1, e3)
			w.Leases = map[Claim]uint64{}
			c2, c3 := Claim{n.ID, "n2", e2.Address}, Claim{n.ID, "n3", e3.Address}
			if tc.n2 != 0 {
				w.Leases[c2] = tc.n2
			}
			if tc.n3 != 0 {
				w.Leases[c3] = tc.n3
			}
			if got := Disputed(w.snap); !slices.Equal(got, []Claim{c2, c3}) {
				t.Errorf("disputed claims: %v", got)
			}
			s, problems := Compute(w.Input)
			if len(problems) != 1 || problems[0].Subject != "node "+tc.loser || !strings.Contains(problems[0].Message, "is left out") {
				t.Errorf("problems: %v", problems)
			}
			winner := map[string]string{"n2": "100.64.0.3", "n3": "100.64.0.2"}[tc.loser]
			for _, e := range s.Entries {
				if f, ok := e.Item.(kstate.FDB); ok && f.Dst.IsValid() && (f.MAC == e2.MAC || f.MAC == e3.MAC) && f.Dst.String() != winner {
					t.Errorf("%s leads to %s, the winner is %s", f.MAC, f.Dst, winner)
				}
			}
		})
	}
}
