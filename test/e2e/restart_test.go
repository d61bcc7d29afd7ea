package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/pkg/api"
)

// identity is what must be the same before and after a restart: inodes of namespaces and indexes of interfaces.
func (w *world) identity(host string) map[string]string {
	w.t.Helper()
	out := map[string]string{}
	script := `for n in /run/netns/weft-*; do echo "$n $(stat -L -c %i $n)"; done; ` +
		`for n in /run/netns/weft-*; do ip netns exec $(basename $n) ip -o link | cut -d: -f1-2 | sed "s|^|$(basename $n) |"; done; ` +
		`ip -o link | cut -d: -f1-2 | sed 's|^|host |'`
	for line := range strings.Lines(w.run(host, "sh", "-c", script)) {
		out[strings.TrimSpace(line)] = ""
	}
	return out
}

// TestAgentKilled kills the agent with SIGKILL in the middle of a 10 ms ping, on both kinds of network at once, and
// starts it again: no packet may be lost, and nothing may have been made anew.
func TestAgentKilled(t *testing.T) {
	w := sharedWorld(t)
	enc := w.network("kill-enc", "--encrypted")
	plain := w.network("kill-plain")
	to := map[string]api.Attachment{}
	for _, n := range []api.Network{enc, plain} {
		w.endpoint("n1", n.Name, n.Name+"-a")
		to[n.Name] = w.endpoint("n2", n.Name, n.Name+"-b")
	}
	for name, b := range to { // settled: the passes after the attach are over
		w.ping("n1", name+"-a", b.Address.Addr().String(), 5, 10*time.Millisecond, 84)
	}
	time.Sleep(time.Second)
	for _, victim := range []string{"n1", "n2"} { // the side that sends, then the side that answers
		before := w.identity(victim)
		runs := map[string]*running{}
		for name, b := range to {
			runs[name] = w.startPing("n1", name+"-a", b.Address.Addr().String(), 600, 10*time.Millisecond, 84)
		}
		time.Sleep(time.Second)
		pid, err := w.AgentPID(victim)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.StopAgent(context.Background(), victim, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
			t.Fatalf("the agent of %s (process %d) is still there after SIGKILL", victim, pid)
		}
		time.Sleep(time.Second)
		w.startAgent(victim)
		for name, r := range runs {
			var p pings
			r.result(&p)
			if p.Received != p.Sent {
				t.Errorf("agent of %s killed: network %s lost %d of %d pings: %v", victim, name, p.Sent-p.Received, p.Sent, p.Lost)
			}
			t.Logf("agent of %s killed and restarted: network %s: %d of %d pings answered, longest gap %.0f ms", victim, name, p.Received, p.Sent, p.MaxGapMS)
		}
		if after := w.identity(victim); !maps.Equal(before, after) {
			t.Errorf("namespaces and interfaces of %s changed:\nbefore %v\nafter  %v", victim, before, after)
		}
		if now, err := w.AgentPID(victim); err != nil || now == pid {
			t.Errorf("the agent of %s is not a new process: %d, %v", victim, now, err)
		}
	}
}

func (w *world) startAgent(host string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := w.StartAgent(ctx, host); err != nil {
		w.t.Fatal(err)
	}
	if err := w.WaitReady(ctx, host); err != nil {
		w.t.Fatal(err)
	}
}

// TestEndpointsSurviveAgent checks that endpoints made before a restart are the agent's afterwards: listed, named in
// DNS, and detached like any other.
func TestEndpointsSurviveAgent(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("survive", "--encrypted")
	a := w.endpoint("n1", n.Name, "keeper", "--service", "kept")
	if err := w.StopAgent(context.Background(), "n1", unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.startAgent("n1")
	var e api.Endpoint
	w.weftJSON(&e, "n1", "endpoint", "inspect", "keeper")
	if e.ID != a.ID || e.Address != a.Address.Addr() || e.MAC != a.MAC || e.State != "up" {
		t.Errorf("after the restart the endpoint is %+v, attached was %+v", e, a)
	}
	if out := w.run("n2", "weft", "run", n.Name, "--", "getent", "hosts", "kept"); !strings.Contains(out, a.Address.Addr().String()) {
		t.Errorf("name kept is answered with %q, want %s", out, a.Address.Addr())
	}
	w.weft("n1", "detach", "keeper")
	if out := w.weft("n1", "endpoint", "ls"); strings.Contains(out, "keeper") {
		t.Errorf("endpoint is still listed after detach:\n%s", out)
	}
}
