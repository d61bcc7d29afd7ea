package cni

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"go.uber.org/goleak"

	"weft/pkg/api"
	"weft/pkg/apiclient"
	"weft/pkg/apiserver/apiservertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is an agent without a data path, with network net1.
type host struct {
	*apiservertest.Backend
	t      *testing.T
	socket string
	client *apiclient.Client
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{Backend: &apiservertest.Backend{}, t: t}
	h.socket = apiservertest.Serve(t, h.Backend)
	h.client = apiclient.New(h.socket)
	if _, err := h.client.CreateNetwork(t.Context(), api.NetworkSpec{Name: "net1"}); err != nil {
		t.Fatal(err)
	}
	return h
}

// args is a call of the plugin; more is merged into the configuration.
func (h *host) args(container, ifname string, more map[string]any) *skel.CmdArgs {
	h.t.Helper()
	c := map[string]any{"cniVersion": "1.1.0", "name": "conf", "type": Type, "weft": map[string]any{"network": "net1", "socket": h.socket}}
	for k, v := range more {
		c[k] = v
	}
	data, err := json.Marshal(c)
	if err != nil {
		h.t.Fatal(err)
	}
	return &skel.CmdArgs{ContainerID: container, IfName: ifname, Netns: "/run/netns/" + container, StdinData: data}
}

func (h *host) add(a *skel.CmdArgs) (*types100.Result, error) {
	h.t.Helper()
	var out bytes.Buffer
	if err := (Plugin{Out: &out}).Add(h.t.Context(), a); err != nil {
		return nil, err
	}
	r, err := types100.NewResult(out.Bytes())
	if err != nil {
		h.t.Fatalf("ADD printed %s: %v", out.Bytes(), err)
	}
	return r.(*types100.Result), nil
}

// wantError checks code and text of a CNI error.
func wantError(t *testing.T, err error, code uint, text string) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Error(), text) {
		t.Errorf("got %#v, want code %d with %q", err, code, text)
	}
}

// newHostless are the arguments of a call; "" stands for c1 and eth0.
func newHostless(container, ifname string) *skel.CmdArgs {
	return &skel.CmdArgs{ContainerID: cmp.Or(container, "c1"), IfName: cmp.Or(ifname, "eth0"), Netns: "/run/netns/x"}
}
