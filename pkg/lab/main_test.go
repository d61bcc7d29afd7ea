package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"weft/pkg/api"
)

// The test binary stands for weft: the lab starts it again for its hosts, and as their agent.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case "lab":
			os.Exit(Main(os.Args[2:]))
		case "agent":
			os.Exit(fakeAgent())
		case "up":
			os.Exit(upAndReport(os.Args[2]))
		}
	}
	// The race detector has every program wait a second before it ends, and a lab runs hundreds.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic("lab: " + err.Error())
	}
	os.Exit(m.Run())
}

// fakeAgent answers for its status, as an agent that knows one other node.
func fakeAgent() int {
	if err := os.MkdirAll(filepath.Dir(agentSocket), 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_ = os.Remove(agentSocket)
	listener, err := net.Listen("unix", agentSocket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	name, _ := os.Hostname()
	go func() {
		_ = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := api.Status{Node: name, Peers: make([]api.PeerStatus, 1)}
			s.Consul.OK = true
			_ = json.NewEncoder(w).Encode(s)
		}))
	}()
	fmt.Println("agent", os.Args[2:])
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	<-stop
	return 0
}

// upAndReport makes a lab and prints its progress, for a test that kills it.
func upAndReport(dir string) int {
	consul := os.Getenv("LAB_TEST_CONSUL")
	o := Options{Dir: dir, Nodes: 2, NoAgents: true, Consul: consul, Progress: func(line string) { fmt.Println(line) }}
	if _, err := Up(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
