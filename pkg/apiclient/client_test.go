package apiclient_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"weft/pkg/api"
	"weft/pkg/apiclient"
	"weft/pkg/apiserver/apiservertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCalls(t *testing.T) {
	b := &apiservertest.Backend{
		Self:  api.Status{Node: "n1", Backend: "kernel", Consul: api.ConsulStatus{Address: "127.0.0.1:8500", OK: true}},
		Known: []api.Node{{Name: "n1", Self: true}},
	}
	c := apiclient.New(apiservertest.Serve(t, b))
	ctx := t.Context()

	n, err := c.CreateNetwork(ctx, api.NetworkSpec{Name: "net", Subnet: "10.9.0.0/24", Encrypted: true, Labels: map[string]string{"a": "b"}})
	if err != nil || n.Name != "net" || !n.Encrypted || n.Gateway.String() != "10.9.0.1" || n.Endpoints == nil {
		t.Fatalf("CreateNetwork: %+v, %v", n, err)
	}
	const id = "pod/7 %2F?#"
	a, err := c.Attach(ctx, api.AttachSpec{Network: "net", ID: id, Name: "web-1", Services: []string{"web"}, NewNetNS: true})
	if err != nil || string(a.ID) != id || a.Address.String() != "10.9.0.2/24" {
		t.Fatalf("Attach: %+v, %v", a, err)
	}
	if got := b.PeerOf(id); got.PID != os.Getpid() || int(got.UID) != os.Geteuid() {
		t.Errorf("the agent sees %+v, want this process", got)
	}
	if err := c.SetProcess(ctx, id, api.Process{PID: 7}); err != nil {
		t.Errorf("SetProcess: %v", err)
	}
	e, err := c.Endpoint(ctx, id)
	if err != nil || e.PID != 7 || e.Service != "web" {
		t.Errorf("Endpoint: %+v, %v", e, err)
	}
	if es, err := c.Endpoints(ctx); err != nil || len(es) != 1 {
		t.Errorf("Endpoints: %+v, %v", es, err)
	}
	n, err = c.Network(ctx, "net")
	if err != nil || cmp.Diff([]api.Endpoint{e}, n.Endpoints, cmp.Comparer(func(a, b api.Endpoint) bool { return fmt.Sprint(a) == fmt.Sprint(b) })) != "" {
		t.Errorf("Network: %+v, %v", n, err)
	}
	if err := c.RemoveNetwork(ctx, "net"); !errors.Is(err, os.ErrExist) {
		t.Errorf("RemoveNetwork with an endpoint: %v", err)
	}
	if err := c.Leave(ctx, api.LeaveSpec{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("Leave: %v", err)
	}
	if err := c.Detach(ctx, id); err != nil {
		t.Errorf("Detach: %v", err)
	}
	if err := c.RemoveNetwork(ctx, "net"); err != nil {
		t.Errorf("RemoveNetwork: %v", err)
	}
	if ns, err := c.Networks(ctx); err != nil || ns == nil || len(ns) != 0 {
		t.Errorf("Networks: %#v, %v, want an empty list", ns, err)
	}
	if st, err := c.Status(ctx); err != nil || st.Node != "n1" || !st.Consul.OK {
		t.Errorf("Status: %+v, %v", st, err)
	}
	if ns, err := c.Nodes(ctx); err != nil || len(ns) != 1 {
		t.Errorf("Nodes: %+v, %v", ns, err)
	}
	if n, err := c.Node(ctx, "n1"); err != nil || !n.Self {
		t.Errorf("Node: %+v, %v", n, err)
	}
	if err := c.RemoveNode(ctx, "n2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("RemoveNode: %v", err)
	}
	if text, err := c.Plan(ctx); err != nil || text != "want\nhave\ndiff\n" {
		t.Errorf("Plan: %q, %v", text, err)
	}
}

func TestErrorsOfTheAgentAreKept(t *testing.T) {
	b := &apiservertest.Backend{Hook: func(context.Context, string) error {
		return api.Errorf(api.Exhausted, "network net has no free address: 250 used, 3 quarantined")
	}}
	_, err := apiclient.New(apiservertest.Serve(t, b)).Attach(t.Context(), api.AttachSpec{Network: "net", NewNetNS: true})
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.Exhausted || err.Error() != "network net has no free address: 250 used, 3 quarantined" {
		t.Errorf("Attach: %v", err)
	}
}

func TestNoAgent(t *testing.T) {
	dir := shortDir(t)
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for name, socket := range map[string]string{"no socket": filepath.Join(dir, "none"), "no directory": "/nonexistent/s", "dead agent": stale} {
		t.Run(name, func(t *testing.T) {
			_, err := apiclient.New(socket).Status(t.Context())
			want := "the weft agent does not answer on " + socket + ": start it with `systemctl start weft` or `weft agent --dev`"
			if !errors.Is(err, apiclient.ErrNoAgent) || err.Error() != want {
				t.Errorf("Status: %v\nwant: %s", err, want)
			}
		})
	}
}

func TestStrangers(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"another program", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }, "is not a weft agent (200 OK)"},
		{"another release", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(api.VersionHeader, "2")
			fmt.Fprint(w, "{}")
		}, `speaks version "2" of the API and this client version 1`},
		{"no error in an error", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(api.VersionHeader, api.Version)
			w.WriteHeader(502)
		}, "answers 502 Bad Gateway"},
		{"not JSON", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(api.VersionHeader, api.Version)
			fmt.Fprint(w, "<html>")
		}, "decode answer of the agent"},
		{"gone in the middle", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "stopped before it answered"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := filepath.Join(shortDir(t), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: tt.handler}
			go srv.Serve(l)
			t.Cleanup(func() { srv.Close() })
			if _, err := apiclient.New(socket).Status(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Status: %v, want %q", err, tt.want)
			}
		})
	}
}

func TestNewerClientIsTold(t *testing.T) {
	socket := apiservertest.Serve(t, &apiservertest.Backend{})
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /v1/status HTTP/1.0\r\n%s: 2\r\n\r\n", api.VersionHeader)
	buf := make([]byte, 4096)
	n, _ := c.Read(buf)
	if got := string(buf[:n]); !strings.Contains(got, "400") {
		t.Errorf("answer: %s", got)
	}
}

func TestImpossibleNames(t *testing.T) {
	c := apiclient.New("/nonexistent")
	for _, name := range []string{"", ".", ".."} {
		var e *api.Error
		if err := c.Detach(t.Context(), name); !errors.As(err, &e) || e.Code != api.Invalid {
			t.Errorf("Detach(%q): %v", name, err)
		}
	}
}

func TestCanceled(t *testing.T) {
	entered := make(chan struct{})
	b := &apiservertest.Backend{Hook: func(ctx context.Context, _ string) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}}
	c := apiclient.New(apiservertest.Serve(t, b))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Status: %v", err)
	}
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "weft")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
