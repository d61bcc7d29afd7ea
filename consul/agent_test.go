package consul_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/consul"
)

func TestAgentService(t *testing.T) {
	s, c := dev(t)
	ctx := t.Context()
	health := make(chan map[string]consul.NodeHealth, 100)
	failed := make(chan error, 100)
	background(t, func(ctx context.Context) error {
		return c.WatchHealth(ctx, func(h map[string]consul.NodeHealth) { health <- h }, func(err error) { failed <- err })
	})
	wantErr(t, next(t, "error", failed, 5*time.Second), consul.ErrUnreadable) // nobody is there, which cannot be

	if err := c.UpdateCheck(ctx, consul.CheckMesh, consul.Passing, ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("update before the registration says %v", err)
	}
	agent := consul.AgentService{Node: "n1", Address: netip.MustParseAddr("192.0.2.1"), Port: 51820, Version: "1.0", Meta: map[string]string{"backend": "kernel"}}
	if err := c.RegisterAgent(ctx, agent); err != nil {
		t.Fatal(err)
	}
	want := map[string]consul.NodeHealth{"n1": {
		ConsulNode: "consul1", SerfAlive: true, Address: "192.0.2.1", Port: 51820,
		Meta:   map[string]string{"backend": "kernel", "node": "n1", "version": "1.0"},
		Checks: newChecks(),
	}}
	until := func(what string) {
		t.Helper()
		var diff string
		for deadline := time.After(10 * time.Second); ; {
			select {
			case got := <-health:
				if diff = cmp.Diff(want, got); diff == "" {
					return
				}
			case <-deadline:
				t.Fatalf("%s does not show (-want +got):\n%s", what, diff)
			}
		}
	}
	until("the registration")

	set := func(check string, status consul.CheckStatus, output string) {
		t.Helper()
		if err := c.UpdateCheck(ctx, check, status, output); err != nil {
			t.Fatal(err)
		}
		want["n1"].Checks[check] = consul.Check{Status: status, Output: output}
	}
	set(consul.CheckMesh, consul.Passing, "2 of 2 peers")
	set(consul.CheckDataPath, consul.Critical, "bridge is missing")
	until("the checks' state")

	// Registering again, as an upgraded agent does, keeps it.
	if err := c.RegisterAgent(ctx, agent); err != nil {
		t.Fatal(err)
	}
	other := client(t, consul.Config{Address: s.Address})
	if err := other.RegisterAgent(ctx, consul.AgentService{Node: "n2", Address: netip.MustParseAddr("192.0.2.2"), Port: 51820}); err != nil {
		t.Fatal(err)
	}
	want["n2"] = consul.NodeHealth{
		ConsulNode: "consul1", SerfAlive: true, Address: "192.0.2.2", Port: 51820,
		Meta:   map[string]string{"node": "n2", "version": ""},
		Checks: newChecks(),
	}
	until("a second agent")

	// Consul forgot us: the next update registers again.
	s.CLI("services", "deregister", "-id=weft-n1")
	set(consul.CheckMesh, consul.Passing, "back")
	want["n1"].Checks[consul.CheckDataPath] = consul.Check{Status: consul.Warning}
	until("the registration after its loss")

	for range 2 {
		if err := c.DeregisterAgent(ctx, "n1"); err != nil {
			t.Error(err)
		}
	}
	delete(want, "n1")
	until("the deregistration")
}

func newChecks() map[string]consul.Check {
	return map[string]consul.Check{consul.CheckDataPath: {Status: consul.Warning}, consul.CheckMesh: {Status: consul.Warning}}
}
