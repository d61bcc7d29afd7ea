package consul_test

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/consul"
)

func TestInstances(t *testing.T) {
	_, c := dev(t)
	ctx := t.Context()
	i := consul.Instance{Node: "n1", Network: "my-app", Endpoint: "web-1", EndpointID: "0123456789ab", Service: "web",
		Address: netip.MustParseAddr("10.0.0.2"), Port: 8080, Checked: true}
	if err := c.UpdateInstance(ctx, i, consul.CheckHealth, consul.Passing, ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("update before the registration says %v", err)
	}
	for range 2 { // again is fine
		if err := c.RegisterInstance(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	for _, check := range []string{consul.CheckAttached, consul.CheckHealth} {
		if err := c.UpdateInstance(ctx, i, check, consul.Passing, "as it should be"); err != nil {
			t.Fatal(err)
		}
	}
	other := i
	other.Node, other.EndpointID = "n2", "fedcba987654"
	if err := c.RegisterInstance(ctx, other); err != nil {
		t.Fatal(err)
	}
	ids, err := c.Instances(ctx, "n1")
	if diff := cmp.Diff([]string{"weft:n1:0123456789ab:web"}, ids); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	for range 2 {
		if err := c.DeregisterInstance(ctx, i.ID()); err != nil {
			t.Fatal(err)
		}
	}
	if ids, err := c.Instances(ctx, "n1"); err != nil || len(ids) != 0 {
		t.Errorf("after the removal: %v, %v", ids, err)
	}
}

// A Consul agent that knows nobody else has nobody to rejoin; it counts itself among the servers.
func TestRejoinAlone(t *testing.T) {
	_, c := dev(t)
	if err := c.Rejoin(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Rejoin = %v", err)
	}
	if n, err := c.AliveServers(t.Context()); n != 1 || err != nil {
		t.Errorf("AliveServers = %d, %v", n, err)
	}
}
