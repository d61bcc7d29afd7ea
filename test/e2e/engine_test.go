package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft/pkg/lab"
)

// TestEngineKilled kills the engine with SIGKILL: the agent starts it again with the same keys and networks.
func TestEngineKilled(t *testing.T) {
	w := ownWorld(t, lab.Options{Nodes: 2, Backend: "engine"})
	w.weft("n1", "network", "create", "killed", "--encrypted")
	w.eventually(5*time.Second, "network known", func() error { _, err := w.try("n2", "weft", "network", "inspect", "killed"); return err })
	w.endpoint("n1", "killed", "killed-a")
	b := w.endpoint("n2", "killed", "killed-b")
	to := b.Address.Addr().String()
	if p := w.ping("n1", "killed-a", to, 20, 10*time.Millisecond, 1370); p.Received == 0 {
		t.Fatalf("before: %+v", p)
	}
	time.Sleep(time.Second)
	for _, host := range []string{"n1", "n2"} {
		steady := w.startPing("n1", "killed-a", to, 400, 10*time.Millisecond, 84)
		time.Sleep(time.Second)
		pid := w.enginePID(host)
		w.run(host, "kill", "-9", strconv.Itoa(pid))
		var p pings
		steady.result(&p)
		t.Logf("engine of %s killed: %d of %d pings answered, longest gap %.0f ms", host, p.Received, p.Sent, p.MaxGapMS)
		if p.MaxGapMS == 0 || p.MaxGapMS > 2500 || p.Sent-p.Received > 250 {
			t.Errorf("engine of %s killed: %+v", host, p)
		}
		if now := w.enginePID(host); now == pid {
			t.Errorf("engine of %s has still process id %d", host, pid)
		}
		if s := w.status(host); len(s.Problems) > 0 {
			t.Errorf("status of %s: %+v", host, s.Problems)
		}
	}
}

// enginePID finds the engine by its executable and arguments, in the host's own view of processes.
func (w *world) enginePID(host string) int {
	w.t.Helper()
	out := w.run(host, "sh", "-c", `for p in /proc/[0-9]*; do tr '\0' ' ' < $p/cmdline 2>/dev/null | grep -q ' engine --device weft[w]g0' && echo ${p#/proc/}; done; true`)
	for _, f := range strings.Fields(out) {
		if pid, err := strconv.Atoi(f); err == nil {
			return pid
		}
	}
	w.t.Fatal(fmt.Sprintf("no engine on %s", host))
	return 0
}
