package cni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"weft/pkg/api"
	"weft/pkg/cni/queue"
)

func TestAddDel(t *testing.T) {
	h := newHost(t)
	p, ctx := Plugin{Out: io.Discard}, t.Context()
	a := h.args("c1", "eth0", nil)
	a.Args = "IgnoreUnknown=1;K8S_POD_NAME=web"
	r, err := h.add(a)
	if err != nil || len(r.IPs) != 1 || len(r.Routes) != 1 || len(r.DNS.Nameservers) != 1 || r.Interfaces[0].Sandbox != a.Netns {
		t.Fatalf("ADD: %+v, %v", r, err)
	}
	e, err := h.client.Endpoint(ctx, "c1:eth0")
	if err != nil || e.Name != "web" || e.Owner != "cni/conf" || e.Network != "net1" {
		t.Fatalf("endpoint: %+v, %v", e, err)
	}
	_, err = h.add(a)
	wantError(t, err, CodeExists, "exists already")
	quiet := h.args("c2", "eth0", map[string]any{"weft": map[string]any{"network": "net1", "socket": h.socket, "dns": "none"}})
	if r, err := h.add(quiet); err != nil || len(r.DNS.Nameservers) != 0 {
		t.Errorf("dns none: %+v, %v", r, err)
	}
	a.Netns = ""
	for range 2 {
		if err := p.Del(ctx, a); err != nil {
			t.Errorf("DEL: %v", err)
		}
	}
	if _, err := h.client.Endpoint(ctx, "c1:eth0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after DEL: %v", err)
	}
}

// TestCodes: what the agent says travels with the code that tells a runtime what kind of thing it is.
func TestCodes(t *testing.T) {
	for code, want := range map[api.Code]uint{api.Invalid: 7, api.NotFound: 7, api.Conflict: CodeExists, api.Exhausted: CodeExhausted,
		api.Unavailable: 11, api.Forbidden: 5, api.Internal: 999, "new": 999} {
		h := newHost(t)
		h.Hook = func(context.Context, string) error { return api.Errorf(code, "the agent's own words") }
		a := h.args("c1", "eth0", nil)
		a.Netns = "/proc/self/ns/net" // there, so that it is not what was not found
		_, err := h.add(a)
		wantError(t, err, want, "the agent's own words")
	}
}

func TestDelIsQueued(t *testing.T) {
	h := newHost(t)
	p, ctx := Plugin{Out: io.Discard}, t.Context()
	a := h.args("c1", "eth0", nil)
	if _, err := h.add(a); err != nil {
		t.Fatal(err)
	}
	h.Hook = func(_ context.Context, call string) error {
		if call == "Detach" {
			return api.Errorf(api.Unavailable, "not now")
		}
		return nil
	}
	if err := p.Del(ctx, a); err != nil {
		t.Fatalf("DEL: %v", err)
	}
	q := queue.Of(h.socket)
	if !q.Has("c1:eth0") {
		t.Fatal("not queued")
	}
	_, err := h.add(a)
	wantError(t, err, 11, "earlier DEL")
	h.Hook = nil
	if _, err := h.add(a); err != nil || q.Has("c1:eth0") {
		t.Errorf("ADD after a queued DEL: %v", err)
	}
	// Nowhere to queue: then the runtime must try again.
	h.Hook = func(context.Context, string) error { return api.Errorf(api.Unavailable, "not now") }
	if err := os.RemoveAll(q.Dir()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(q.Dir(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, p.Del(ctx, a), 11, "not now")
}

// TestDelWaitsForAdd: an ADD that the runtime has killed is still being taken back.
func TestDelWaitsForAdd(t *testing.T) {
	h := newHost(t)
	a := h.args("c1", "eth0", nil)
	if _, err := h.add(a); err != nil {
		t.Fatal(err)
	}
	left := 3
	h.Hook = func(_ context.Context, call string) error {
		if left--; call == "Detach" && left > 0 {
			return api.Errorf(api.Conflict, "endpoint is being attached at this moment")
		}
		return nil
	}
	if err := (Plugin{Out: io.Discard}).Del(t.Context(), a); err != nil || left > 0 || queue.Of(h.socket).Has("c1:eth0") {
		t.Errorf("DEL: %v, %d", err, left)
	}
}

// TestUnprinted: a result that the runtime cannot read leaves no endpoint.
func TestUnprinted(t *testing.T) {
	h := newHost(t)
	err := (Plugin{Out: broken{}}).Add(t.Context(), h.args("c1", "eth0", nil))
	wantError(t, err, types.ErrIOFailure, "closed pipe")
	if es, err := h.client.Endpoints(t.Context()); err != nil || len(es) != 0 {
		t.Errorf("left: %v, %v", es, err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestCheck(t *testing.T) {
	h := newHost(t)
	p, ctx := Plugin{Out: io.Discard}, t.Context()
	a := h.args("c1", "eth0", nil)
	r, err := h.add(a)
	if err != nil {
		t.Fatal(err)
	}
	check := h.args("c1", "eth0", map[string]any{"prevResult": r})
	if err := p.Check(ctx, check); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	wantError(t, p.Check(ctx, a), 7, "prevResult")
	other := h.args("c2", "eth0", map[string]any{"prevResult": r})
	wantError(t, p.Check(ctx, other), types.ErrUnknownContainer, "not attached")
	h.Broken = []string{"missing: addr 10.0.0.2/24 on eth0"}
	wantError(t, p.Check(ctx, check), CodeDamaged, "missing: addr 10.0.0.2/24 on eth0")
	h.Broken = nil
	r.IPs[0].Address.IP[len(r.IPs[0].Address.IP)-1]++
	r.Interfaces[0].Mac = "02:00:00:00:ff:ff"
	wantError(t, p.Check(ctx, h.args("c1", "eth0", map[string]any{"prevResult": r})), CodeDamaged, "not 02:00:00:00:ff:ff")
}

func TestGC(t *testing.T) {
	h := newHost(t)
	p, ctx := Plugin{Out: io.Discard}, t.Context()
	for _, id := range []string{"a", "b", strings.Repeat("x", 140)} {
		if _, err := h.add(h.args(id, "eth0", nil)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.add(h.args("c", "eth0", map[string]any{"name": "other"})); err != nil {
		t.Fatal(err)
	}
	if _, err := h.client.Attach(ctx, api.AttachSpec{Network: "net1", ID: "plain", NewNetNS: true}); err != nil {
		t.Fatal(err)
	}
	valid := []any{map[string]any{"containerID": strings.Repeat("x", 140), "ifname": "eth0"}, map[string]any{"containerID": "a", "ifname": "eth1"}}
	if err := p.GC(ctx, h.args("", "", map[string]any{"cni.dev/valid-attachments": valid})); err != nil {
		t.Fatal(err)
	}
	es, err := h.client.Endpoints(ctx)
	if err != nil || len(es) != 3 {
		t.Errorf("left: %+v, %v", es, err)
	}
	for _, e := range es {
		if e.ID == "a:eth0" || e.ID == "b:eth0" {
			t.Errorf("%s is left", e.ID)
		}
	}
}

func TestStatus(t *testing.T) {
	h := newHost(t)
	p, ctx := Plugin{Out: io.Discard}, t.Context()
	a := h.args("", "", nil)
	wantError(t, p.Status(ctx, a), 50, "not joined")
	h.Self.VTEP = mustAddr("100.64.0.1")
	wantError(t, p.Status(ctx, a), 50, "weft network create")
	h.Self.Networks = []api.NetworkStatus{{Name: "net1", State: "up"}}
	if err := p.Status(ctx, a); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	h.Self.Networks = []api.NetworkStatus{{Name: "net1", State: "error", Error: "no fence"}}
	wantError(t, p.Status(ctx, a), 51, "no fence")
	a = h.args("", "", map[string]any{"weft": map[string]any{"socket": fmt.Sprintf("/nonexistent/%s", t.Name())}})
	wantError(t, p.Status(ctx, a), 50, "does not answer")
}
