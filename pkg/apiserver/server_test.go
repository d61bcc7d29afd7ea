package apiserver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/pkg/api"
	"weft/pkg/apiserver"
	"weft/pkg/apiserver/apiservertest"
)

func TestRoutes(t *testing.T) {
	b := &apiservertest.Backend{Known: []api.Node{{Name: "n1"}}}
	socket := apiservertest.Serve(t, b)
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string // part of the answer
	}{
		{"GET", "/v1/networks", "", 200, `[]`},
		{"GET", "/v1/endpoints", "", 200, `[]`},
		{"POST", "/v1/networks", `{"name":"net"}`, 201, `"endpoints":[]`},
		{"POST", "/v1/networks", `{"name":"net"}`, 409, `"code":"conflict"`},
		{"POST", "/v1/networks", `{"name":"x","subnett":"y"}`, 400, `unknown field \"subnett\"`},
		{"POST", "/v1/networks", `{}`, 400, `needs a name`},
		{"POST", "/v1/networks", ``, 400, `is empty`},
		{"POST", "/v1/networks", `{"name":"` + strings.Repeat("x", 2<<20) + `"}`, 400, `larger than 1048576 bytes`},
		{"GET", "/v1/networks", "", 200, `"name":"net"`},
		{"GET", "/v1/networks/net", "", 200, `"endpoints":[]`},
		{"GET", "/v1/networks/no", "", 404, `"code":"not_found"`},
		{"POST", "/v1/endpoints", `{"network":"net","id":"pod/7","newNetns":true}`, 201, `"address":"10.0.0.2/24"`},
		{"POST", "/v1/endpoints", `{"network":"net"}`, 400, `say which namespace`},
		{"GET", "/v1/endpoints/pod%2F7", "", 200, `"id":"pod/7"`},
		{"PUT", "/v1/endpoints/pod%2F7/process", `{"pid":7}`, 204, ``},
		{"PUT", "/v1/endpoints/pod%2F7/process", `{"pid":0}`, 400, `not a process id`},
		{"GET", "/v1/endpoints/pod%2F7", "", 200, `"pid":7`},
		{"DELETE", "/v1/networks/net", "", 409, `pod/7`},
		{"POST", "/v1/leave", `{}`, 409, `endpoints exist`},
		{"DELETE", "/v1/endpoints/pod%2F7", "", 204, ``},
		{"DELETE", "/v1/networks/net", "", 204, ``},
		{"POST", "/v1/leave", `{"purge":true}`, 204, ``},
		{"GET", "/v1/status", "", 200, `"peers":[],"networks":[]`},
		{"GET", "/v1/status", "", 200, `"drops":{},"problems":[]`},
		{"GET", "/v1/nodes", "", 200, `"underlay":[]`},
		{"GET", "/v1/nodes/n1", "", 200, `"wireguard":[]`},
		{"DELETE", "/v1/nodes/n2", "", 404, `no node`},
		{"GET", "/v1/plan", "", 200, "want\nhave"},
		{"GET", "/", "", 404, `"code":"not_found"`},
		{"GET", "/v2/status", "", 404, `no such route: GET /v2/status`},
		{"GET", "/v1/status/", "", 404, `"code":"not_found"`},
		{"GET", "/v1//status", "", 404, `"code":"not_found"`},
		{"GET", "/v1/networks/../status", "", 404, `"code":"not_found"`},
		{"POST", "/v1/status", "", 405, `takes GET, not POST`},
		{"PATCH", "/v1/networks", "", 405, `takes GET or POST, not PATCH`},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			status, body, err := request(tt.method, socket, tt.path, tt.body)
			if err != nil || status != tt.status || !strings.Contains(body, tt.want) {
				t.Errorf("%d %s %v, want %d with %s", status, body, err, tt.status, tt.want)
			}
		})
	}
}

func TestBackendErrors(t *testing.T) {
	var fail error
	b := &apiservertest.Backend{Hook: func(context.Context, string) error {
		if fail == nil {
			panic("on purpose")
		}
		return fail
	}}
	socket := apiservertest.Serve(t, b)
	for _, tt := range []struct {
		name   string
		err    error
		status int
		want   string
	}{
		{"sentinel", fmt.Errorf("read lease: %w", os.ErrNotExist), 404, `{"code":"not_found","message":"read lease: file does not exist"}`},
		{"ours", api.Errorf(api.Exhausted, "no free address"), 507, `{"code":"exhausted","message":"no free address"}`},
		{"unknown", errors.New("disk\nburns"), 500, `{"code":"internal","message":"disk; burns"}`},
		{"panic", nil, 500, `the agent has a bug: panic in GET /v1/status`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fail = tt.err
			status, body, err := request("GET", socket, "/v1/status", "")
			if err != nil || status != tt.status || !strings.Contains(body, tt.want) {
				t.Errorf("%d %s %v, want %d with %s", status, body, err, tt.status, tt.want)
			}
		})
	}
}

// A client that leaves during attach never learns the id that weft chose.
func TestAttachIsTakenBackWhenTheClientLeft(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       int // endpoints left
	}{
		{"id chosen by weft", `{"network":"net","newNetns":true}`, 0},
		{"id chosen by the client", `{"network":"net","id":"x","newNetns":true}`, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			entered, detached := make(chan struct{}), make(chan struct{}, 1)
			b := &apiservertest.Backend{}
			b.Hook = func(ctx context.Context, call string) error {
				switch call {
				case "Attach":
					close(entered)
					<-ctx.Done() // as slow as can be, and then successful nevertheless
				case "Detach":
					detached <- struct{}{}
				}
				return nil
			}
			socket := apiservertest.Serve(t, b)
			if _, err := b.CreateNetwork(t.Context(), api.NetworkSpec{Name: "net"}); err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "POST /v1/endpoints HTTP/1.1\r\nHost: weft\r\nContent-Length: %d\r\n\r\n%s", len(tt.body), tt.body)
			<-entered
			c.Close()
			if tt.want == 0 {
				<-detached
			}
			deadline := time.Now().Add(5 * time.Second)
			for {
				es, err := b.Endpoints(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if len(es) == tt.want {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d endpoints are left, want %d", len(es), tt.want)
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
}

func TestShutdownLetsRequestsFinish(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	b := &apiservertest.Backend{Hook: func(ctx context.Context, _ string) error {
		close(entered)
		select {
		case <-leave:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	socket := filepath.Join(shortDir(t), "s")
	s, err := apiserver.New(apiservertest.Config(b, socket))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()
	answer := make(chan string, 1)
	go func() {
		status, body, err := request("GET", socket, "/v1/networks", "")
		answer <- fmt.Sprint(status, " ", body, " ", err)
	}()
	<-entered
	cancel()
	for { // until the listener is closed
		if _, err := os.Stat(socket); errors.Is(err, os.ErrNotExist) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(leave)
	if got := <-answer; got != "200 [] <nil>" {
		t.Errorf("answer during shutdown: %s", got)
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestNewChecksItsConfig(t *testing.T) {
	good := apiservertest.Config(&apiservertest.Backend{}, "/x")
	for name, spoil := range map[string]func(*apiserver.Config){
		"socket":  func(c *apiserver.Config) { c.Socket = "" },
		"log":     func(c *apiserver.Config) { c.Log = nil },
		"backend": func(c *apiserver.Config) { c.Nodes = nil },
	} {
		c := good
		spoil(&c)
		if _, err := apiserver.New(c); err == nil {
			t.Errorf("New without %s succeeds", name)
		}
	}
}

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "weft")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
