package consul_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/consul"
	"weft/consul/consultest"
	"weft/pkg/ipam"
	"weft/pkg/ipam/ipamtest"
)

func TestReadsHaveFourOutcomes(t *testing.T) {
	s := consultest.Start(t, "")
	c := client(t, consul.Config{Address: s.Address})
	ctx := t.Context()

	// No sentinel: nothing is readable, be it empty or not.
	_, err := c.Get(ctx, "nodes/n1")
	wantErr(t, err, consul.ErrUnreadable)
	_, err = c.List(ctx, "nodes")
	wantErr(t, err, consul.ErrUnreadable)

	id, err := c.EnsureCluster(ctx)
	if err != nil || len(id) != 12 {
		t.Fatalf("cluster is %q, %v", id, err)
	}
	_, err = c.Get(ctx, "nodes/n1")
	wantErr(t, err, os.ErrNotExist)
	if pairs, err := c.List(ctx, "nodes"); err != nil || len(pairs) != 0 {
		t.Errorf("empty folder lists as %v, %v", pairs, err)
	}

	for _, path := range []string{"nodes/n2", "nodes/n10", "nodes/n1", "nodesque/n9"} {
		put(t, c, path, "value of "+path)
	}
	pairs, err := c.List(ctx, "nodes/")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range pairs {
		got = append(got, p.Path+" = "+string(p.Value))
		if p.Version == 0 || p.Created == 0 {
			t.Errorf("pair without versions: %+v", p)
		}
	}
	want := []string{"nodes/n1 = value of nodes/n1", "nodes/n10 = value of nodes/n10", "nodes/n2 = value of nodes/n2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	one, err := c.Get(ctx, "nodes/n10")
	if diff := cmp.Diff(pairs[1], one); err != nil || diff != "" {
		t.Errorf("get: %v (-list +get)\n%s", err, diff)
	}

	s.Stop()
	_, err = c.Get(ctx, "nodes/n1")
	wantErr(t, err, consul.ErrUnavailable)
	_, err = c.List(ctx, "nodes")
	wantErr(t, err, consul.ErrUnavailable)
	wantErr(t, c.Txn(ctx, consul.Set("nodes/n1", nil)), consul.ErrUnavailable)
	if st := c.Status(); st.OK || st.LastContact.IsZero() || !errors.Is(st.LastError, consul.ErrUnavailable) || st.Address != s.Address {
		t.Errorf("status with consul down is %+v", st)
	}
}

func TestSilentConsulIsUnavailable(t *testing.T) {
	s, c := dev(t)
	s.Pause()
	defer s.Resume()
	start := time.Now()
	_, err := c.List(t.Context(), "nodes")
	wantErr(t, err, consul.ErrUnavailable)
	if d := time.Since(start); d > 12*time.Second {
		t.Errorf("gave up after %v", d)
	}
}

func TestCluster(t *testing.T) {
	s, c := dev(t)
	ctx := t.Context()
	id, err := c.EnsureCluster(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := c.Get(ctx, consul.ClusterPath)
	if want := fmt.Sprintf("{\n  \"id\": %q,\n  \"format\": 1\n}", id); err != nil || string(pair.Value) != want {
		t.Errorf("sentinel is %s, %v; want %s", pair.Value, err, want)
	}

	// Many start at once on an empty Consul: all end up in one cluster.
	s.CLI("kv", "delete", "-recurse", "weft/")
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wg.Go(func() {
			got, err := client(t, consul.Config{Address: s.Address}).EnsureCluster(ctx)
			if err != nil {
				t.Error(err)
			}
			ids[i] = got
		})
	}
	wg.Wait()
	for _, other := range ids {
		if other != ids[0] || other == id {
			t.Fatalf("clusters: %v", ids)
		}
	}
	// The first client belongs to another cluster now.
	_, err = c.EnsureCluster(ctx)
	wantErr(t, err, consul.ErrUnreadable)
	_, err = c.List(ctx, "nodes")
	wantErr(t, err, consul.ErrUnreadable)

	// Who knows its cluster puts the same back; who does not, refuses a folder with keys.
	s.CLI("kv", "delete", "weft/cluster")
	s.CLI("kv", "put", "weft/nodes/n1", "x")
	_, err = client(t, consul.Config{Address: s.Address}).EnsureCluster(ctx)
	wantErr(t, err, consul.ErrUnreadable)
	if got, err := client(t, consul.Config{Address: s.Address}).RestoreCluster(ctx, id); err != nil || got != id {
		t.Errorf("restored cluster is %q, %v", got, err)
	}
	if got, err := c.EnsureCluster(ctx); err != nil || got != id {
		t.Errorf("cluster after the restore is %q, %v", got, err)
	}

	s.CLI("kv", "put", "weft/cluster", `{"id": "`+id+`", "format": 2}`)
	_, err = c.EnsureCluster(ctx)
	wantErr(t, err, consul.ErrUnreadable)
	if err == nil || !strings.Contains(err.Error(), "upgrade weft") {
		t.Errorf("newer format says %v", err)
	}
}

func TestTxn(t *testing.T) {
	_, c := dev(t)
	ctx := t.Context()
	get := func(path string) consul.Pair {
		t.Helper()
		p, err := c.Get(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	pairs, err := c.TxnPairs(ctx, consul.CAS("a", []byte("1"), 0), consul.CheckNotExists("b"), consul.Set("c", []byte("1")))
	if err != nil {
		t.Fatal(err)
	}
	a, cc := get("a"), get("c")
	if pairs[0].Version != a.Version || pairs[0].Created != a.Created || pairs[2].Version != cc.Version || pairs[1].Version != 0 {
		t.Errorf("txn returned %+v, stored are %+v and %+v", pairs, a, cc)
	}
	for _, tc := range []struct {
		name string
		ops  []consul.Op
		want error
	}{
		{"create of an existing key", []consul.Op{consul.CAS("a", nil, 0)}, consul.ErrConflict},
		{"stale cas", []consul.Op{consul.CAS("a", nil, a.Version-1)}, consul.ErrConflict},
		{"cas of an absent key", []consul.Op{consul.CAS("b", nil, a.Version)}, consul.ErrConflict},
		{"one of two fails", []consul.Op{consul.Set("d", nil), consul.CheckNotExists("a")}, consul.ErrConflict},
		{"stale index", []consul.Op{consul.CheckIndex("a", a.Version+1), consul.Set("d", nil)}, consul.ErrConflict},
		{"stale delete", []consul.Op{consul.DeleteCAS("a", a.Version-1)}, consul.ErrConflict},
		{"index and delete", []consul.Op{consul.CheckIndex("a", a.Version), consul.Delete("c")}, nil},
		{"delete of an absent key", []consul.Op{consul.Delete("c")}, nil},
		{"nothing", nil, nil},
	} {
		err := c.Txn(ctx, tc.ops...)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: error is %v, want %v", tc.name, err, tc.want)
		}
	}
	_, err = c.Get(ctx, "d")
	wantErr(t, err, os.ErrNotExist)
	_, err = c.Get(ctx, "c")
	wantErr(t, err, os.ErrNotExist)
}

func TestTxnLimits(t *testing.T) {
	_, c := dev(t)
	ctx := t.Context()
	var many []consul.Op
	for i := range consul.MaxTxnOps + 1 {
		many = append(many, consul.Set(fmt.Sprint("many/", i), nil))
	}
	if err := c.Txn(ctx, many...); err == nil || !strings.Contains(err.Error(), "65 operations") {
		t.Errorf("65 operations: %v", err)
	}
	if err := c.Txn(ctx, many[1:]...); err != nil {
		t.Errorf("64 operations: %v", err)
	}
	// What we let pass Consul takes; what it would refuse we do not send.
	if err := c.Txn(ctx, consul.Set("big", bytes.Repeat([]byte{'x'}, 370<<10)), consul.Set("rev", nil)); err != nil {
		t.Errorf("370 KiB: %v", err)
	}
	if err := c.Txn(ctx, consul.Set("big", bytes.Repeat([]byte{'x'}, 400<<10))); err == nil || !strings.Contains(err.Error(), "at most 500") {
		t.Errorf("400 KiB: %v", err)
	}
}

func TestCASRace(t *testing.T) {
	_, c := dev(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				for {
					p, err := c.Get(t.Context(), "counter")
					if err != nil && !errors.Is(err, os.ErrNotExist) {
						t.Error(err)
						return
					}
					err = c.Txn(t.Context(), consul.CAS("counter", append(p.Value, 'x'), p.Version))
					if err == nil {
						break
					}
					if !errors.Is(err, consul.ErrConflict) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	p, err := c.Get(t.Context(), "counter")
	if err != nil || len(p.Value) != 80 {
		t.Errorf("%d increments, want 80 (%v)", len(p.Value), err)
	}
}

func TestLeases(t *testing.T) {
	s := consultest.Start(t, "")
	n := 0
	ipamtest.Conformance(t, func(t *testing.T) ipam.Store {
		n++
		c := client(t, consul.Config{Address: s.Address, Prefix: fmt.Sprint("weft", n)})
		if _, err := c.EnsureCluster(t.Context()); err != nil {
			t.Fatal(err)
		}
		return c.Leases()
	})
}
