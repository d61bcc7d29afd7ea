package ipam_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/pkg/ipam"
	"weft/pkg/ipam/ipamtest"
	"weft/pkg/overlay"
)

// Three nodes attach and detach at random over a store that fails, answers late truths and is down for a while. No
// address is ever in use twice, or again before its quarantine is over.
func TestNeverShareAnAddress(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { neverShare(t, seed) })
		})
	}
}

type holders struct {
	mu    sync.Mutex
	of    map[netip.Addr]string
	until map[netip.Addr]time.Time
}

func neverShare(t *testing.T, seed uint64) {
	w := newWorld(t, network("10.0.1.0/26", ""))
	w.start("n1", "n2", "n3")
	flaky := rand.New(rand.NewPCG(seed, 0))
	w.store.SetFault(func(string) (before, after error) { // under the store's lock
		switch flaky.IntN(20) {
		case 0:
			return ipamtest.ErrDown, nil
		case 1:
			return nil, errors.New("answer lost")
		}
		return nil, nil
	})
	h := &holders{of: map[netip.Addr]string{}, until: map[netip.Addr]time.Time{}}
	var wg sync.WaitGroup
	for i, node := range []string{"n1", "n2", "n3"} {
		wg.Go(func() { attachAndDetach(t, w, h, node, rand.New(rand.NewPCG(seed, uint64(i+1)))) })
	}
	wg.Go(func() {
		for range 4 {
			time.Sleep(20 * time.Second)
			w.store.SetDown(true)
			time.Sleep(10 * time.Second)
			w.store.SetDown(false)
		}
	})
	wg.Wait()
	w.store.SetFault(nil)
	w.store.SetDown(false)
	time.Sleep(5 * time.Minute)
	synctest.Wait()
	for node, p := range w.pools {
		if len(p.Problems()) > 0 {
			t.Errorf("%s: %v", node, p.Problems())
		}
	}
	leases, _ := w.store.List(w.ctx, w.net.Name)
	used := 0
	for _, l := range leases {
		if l.State == overlay.LeaseUsed {
			used++
			if h.of[l.Address] != l.Node+"/"+string(l.Endpoint) {
				t.Errorf("lease %+v, but its address is used by %q", l, h.of[l.Address])
			}
		}
	}
	if used != len(h.of) {
		t.Errorf("%d leases in use for %d endpoints", used, len(h.of))
	}
}

func attachAndDetach(t *testing.T, w *world, h *holders, node string, rnd *rand.Rand) {
	p := w.pools[node]
	mine := map[netip.Addr]string{}
	for i := range 150 {
		time.Sleep(time.Duration(rnd.IntN(1500)) * time.Millisecond)
		if len(mine) > 0 && rnd.IntN(5) < 2 {
			for a := range mine {
				h.mu.Lock()
				delete(h.of, a)
				h.until[a] = time.Now().Add(time.Minute)
				h.mu.Unlock()
				if err := release(p, a); err != nil {
					t.Errorf("release %v on %s: %v", a, node, err)
				}
				delete(mine, a)
				break
			}
			continue
		}
		var want netip.Addr
		if rnd.IntN(6) == 0 {
			want = netip.AddrFrom4([4]byte{10, 0, 1, byte(2 + rnd.IntN(61))})
		}
		id := overlay.EndpointID(fmt.Sprint("e", i))
		a, err := p.Allocate(w.ctx, id, want)
		if err != nil {
			if want.IsValid() && err.Error() == "" || errors.Is(err, os.ErrPermission) {
				t.Errorf("allocate on %s: %v", node, err)
			}
			continue
		}
		h.mu.Lock()
		if other, ok := h.of[a]; ok {
			t.Errorf("%s/%s got %v, which %s has", node, id, a, other)
		}
		if time.Now().Before(h.until[a]) {
			t.Errorf("%s/%s got %v, in quarantine until %v", node, id, a, h.until[a])
		}
		h.of[a] = node + "/" + string(id)
		h.mu.Unlock()
		mine[a] = string(id)
	}
}

// release releases an address for whoever has it.
func release(p *ipam.Pool, a netip.Addr) error {
	for _, l := range p.Export().Leases {
		if l.Address == a {
			return p.Release(l.Endpoint, a)
		}
	}
	return p.Release("nobody", a)
}
