package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/pkg/api"
	"weft/pkg/lab"
)

// TestMixedMesh runs nodes of both backends in one mesh, where the kernel has WireGuard: TCP and UDP between each pair, in
// both directions, small and large. Then a node changes its backend, as after a reboot that brought the module: it keeps
// its identity, its keys and its addresses, and reaches the others again.
func TestMixedMesh(t *testing.T) {
	w := ownWorld(t, lab.Options{Backend: "auto", Backends: map[string]string{"n2": "engine"}})
	auto := w.status("n1").Backend
	if want := os.Getenv(backendEnv); want != "" && auto != want {
		t.Fatalf("backend of n1 is %s, want %s", auto, want)
	}
	if got := w.status("n2").Backend; got != "engine" {
		t.Fatalf("backend of n2 is %s, want engine", got)
	}
	w.weft("n1", "network", "create", "mixed", "--encrypted")
	w.known("mixed", w.Nodes()...)
	at := map[string]api.Attachment{}
	for _, n := range w.Nodes() {
		at[n] = w.endpoint(n, "mixed", "mix-"+n)
	}
	for _, n := range []string{"n2", "n3"} {
		w.reaches("n1", "mix-n1", at[n].Address.Addr())
	}
	w.exchange(at, "n1", "n2", "n3")

	var before, after api.Node
	w.weftJSON(&before, "n1", "node", "inspect", "n2")
	if err := w.StopAgent(t.Context(), "n2", unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.run("n2", "sed", "-i", "s/backend: engine/backend: auto/", w.Dir()+"/n2/weft.yaml")
	w.startAgent("n2")
	w.eventually(5*time.Second, "n1 knows the new backend of n2", func() error {
		w.weftJSON(&after, "n1", "node", "inspect", "n2")
		if after.Backend != auto {
			return fmt.Errorf("backend %s", after.Backend)
		}
		return nil
	})
	after.Backend = before.Backend
	if fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("n2 with another backend is another node:\nbefore %+v\nafter  %+v", before, after)
	}
	if engines := w.run("n2", "sh", "-c", "ls /run/wireguard"); auto != "engine" && strings.TrimSpace(engines) != "" {
		t.Errorf("an engine of n2 is still there: %s", engines)
	}
	w.eventually(5*time.Second, "n1 reaches n2 again", func() error {
		if p := w.ping("n1", "mix-n1", at["n2"].Address.Addr().String(), 3, 10*time.Millisecond, 1370); p.Received != 3 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	w.exchange(at, "n1", "n2")
	w.settled("n1", "n2", "n3")
}

// exchange sends streams and datagrams between the endpoints of all pairs of hosts, in both directions.
func (w *world) exchange(at map[string]api.Attachment, hosts ...string) {
	w.t.Helper()
	const port = 9000
	for _, to := range hosts {
		// The sum over a stream would not show a checksum that the receiver mends or ignores: the sink looks at
		// those of the packets as well.
		s := w.start(to, in("mix-"+to, tool("sink", fmt.Sprint(port), fmt.Sprint(len(hosts)-1))))
		w.eventually(5*time.Second, "sink on "+to, func() error {
			if !strings.Contains(s.err.String(), "ready") {
				return fmt.Errorf("not ready: %s", s.err.String())
			}
			return nil
		})
		for _, from := range hosts {
			if from == to {
				continue
			}
			address := fmt.Sprintf("%s:%d", at[to].Address.Addr(), port)
			var got streamed
			w.start(from, in("mix-"+from, tool("stream", address))).result(&got)
			if got.Wrong != "" {
				w.t.Errorf("from %s to %s: %s", from, to, got.Wrong)
			}
		}
		var sum sunk
		s.result(&sum)
		if sum.Bad > 0 || sum.Good == 0 {
			w.t.Errorf("checksums of what arrived on %s: %+v", to, sum)
		}
		w.t.Logf("into %s: checksums of packets %+v", to, sum)
	}
}

// settled waits until each agent makes passes without applying anything.
func (w *world) settled(hosts ...string) {
	w.t.Helper()
	for _, h := range hosts {
		last := w.status(h).Reconcile
		w.eventually(20*time.Second, "nothing to do on "+h, func() error {
			now := w.status(h).Reconcile
			if now.Applied != last.Applied {
				last = now
			}
			if now.Passes < last.Passes+2 {
				return fmt.Errorf("%+v, before %+v", now, last)
			}
			return nil
		})
	}
}
