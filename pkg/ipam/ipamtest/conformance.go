package ipamtest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/pkg/ipam"
	"weft/pkg/overlay"
)

// Conformance tests what ipam.Store promises. Open gives an empty store for each case.
func Conformance(t *testing.T, open func(t *testing.T) ipam.Store) {
	lease := func(a, node string, s overlay.LeaseState) overlay.Lease {
		return overlay.Lease{Address: netip.MustParseAddr(a), Node: node, Endpoint: "e1", State: s}
	}
	for _, tc := range []struct {
		name string
		run  func(t *testing.T, s ipam.Store)
	}{
		{"an empty network lists as empty", func(t *testing.T, s ipam.Store) {
			check(t, s, "net")
		}},
		{"create, then list", func(t *testing.T, s ipam.Store) {
			a, err := s.Create(t.Context(), "net", lease("10.0.0.2", "n1", overlay.LeaseUsed))
			ok(t, err)
			b, err := s.Create(t.Context(), "net", lease("10.0.0.3", "n2", overlay.LeaseSpare))
			ok(t, err)
			if a.Version == 0 || a.Created == 0 || b.Created <= a.Created {
				t.Errorf("versions do not order leases: %+v, then %+v", a, b)
			}
			check(t, s, "net", a, b)
			check(t, s, "net2")
			check(t, s, "ne")
		}},
		{"create of a taken address", func(t *testing.T, s ipam.Store) {
			a, err := s.Create(t.Context(), "net", lease("10.0.0.2", "n1", overlay.LeaseUsed))
			ok(t, err)
			_, err = s.Create(t.Context(), "net", lease("10.0.0.2", "n2", overlay.LeaseUsed))
			want(t, err, os.ErrExist)
			check(t, s, "net", a)
		}},
		{"update", func(t *testing.T, s ipam.Store) {
			a, err := s.Create(t.Context(), "net", lease("10.0.0.2", "n1", overlay.LeaseUsed))
			ok(t, err)
			b := a
			b.State = overlay.LeaseQuarantine
			b, err = s.Update(t.Context(), "net", b)
			ok(t, err)
			if b.Created != a.Created || b.Version <= a.Version {
				t.Errorf("update changed %+v to %+v: want the same Created and a higher Version", a, b)
			}
			_, err = s.Update(t.Context(), "net", a)
			want(t, err, ipam.ErrConflict)
			check(t, s, "net", b)
		}},
		{"update of what is gone", func(t *testing.T, s ipam.Store) {
			a, err := s.Create(t.Context(), "net", lease("10.0.0.2", "n1", overlay.LeaseUsed))
			ok(t, err)
			ok(t, s.Delete(t.Context(), "net", a))
			_, err = s.Update(t.Context(), "net", a)
			want(t, err, os.ErrNotExist)
			check(t, s, "net")
		}},
		{"delete", func(t *testing.T, s ipam.Store) {
			a, err := s.Create(t.Context(), "net", lease("10.0.0.2", "n1", overlay.LeaseUsed))
			ok(t, err)
			ok(t, s.Delete(t.Context(), "net", a))
			ok(t, s.Delete(t.Context(), "net", a)) // absent is success
			b, err := s.Create(t.Context(), "net", lease("10.0.0.2", "n2", overlay.LeaseUsed))
			ok(t, err)
			want(t, s.Delete(t.Context(), "net", a), ipam.ErrConflict)
			check(t, s, "net", b)
		}},
		{"one winner among many creators", func(t *testing.T, s ipam.Store) {
			var wg sync.WaitGroup
			var won atomic.Int32
			for i := range 16 {
				wg.Go(func() {
					_, err := s.Create(t.Context(), "net", lease("10.0.0.2", fmt.Sprint("n", i), overlay.LeaseUsed))
					switch {
					case err == nil:
						won.Add(1)
					case !errors.Is(err, os.ErrExist):
						t.Errorf("create: %v", err)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Errorf("%d creators won, want 1", won.Load())
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.run(t, open(t)) })
	}
}

func check(t *testing.T, s ipam.Store, network string, leases ...overlay.Lease) {
	t.Helper()
	got, err := s.List(t.Context(), network)
	ok(t, err)
	slices.SortFunc(got, func(a, b overlay.Lease) int { return a.Address.Compare(b.Address) })
	if diff := cmp.Diff(leases, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("leases of %s (-want +got):\n%s", network, diff)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("error is %v, want %v", err, target)
	}
}
