package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/pkg/api"
	"weft/pkg/lab"
)

// TestWholeSubnet attaches as many endpoints as a /24 has addresses, at once from three hosts, one more, and sees
// addresses come back only after their quarantine.
func TestWholeSubnet(t *testing.T) {
	const quarantine = 20 * time.Second
	w := ownWorld(t, lab.Options{ConfigExtra: fmt.Sprintf("ipam:\n  quarantine: %s\n", quarantine)})
	w.weft("n1", "network", "create", "full", "--subnet", "10.50.0.0/24", "--encrypted")
	for _, h := range w.Nodes() {
		w.eventually(5*time.Second, "network known", func() error { _, err := w.try(h, "weft", "network", "inspect", "full"); return err })
	}
	const usable = 253 // 256 less network, broadcast and gateway
	type result struct {
		host string
		a    api.Attachment
		err  error
	}
	results := make([]result, usable)
	began := time.Now()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 24) // how many command lines this machine starts at once
	for i := range results {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			r := &results[i]
			r.host = w.Nodes()[i%3]
			out, err := w.try(r.host, "weft", "run", "full", "--detach", "--name", fmt.Sprintf("e-%d", i), "-o", "json", "--", "sleep", "infinity")
			if r.err = err; err == nil {
				r.err = json.Unmarshal([]byte(out), &r.a)
			}
		})
	}
	wg.Wait()
	t.Logf("%d attaches from three hosts took %.1f s", usable, time.Since(began).Seconds())
	seen := map[netip.Addr]string{}
	for i, r := range results {
		if r.err != nil {
			t.Fatalf("attach %d on %s: %v", i, r.host, r.err)
		}
		if other, twice := seen[r.a.Address.Addr()]; twice {
			t.Fatalf("address %s was given to %s and %s", r.a.Address, other, r.a.Name)
		}
		seen[r.a.Address.Addr()] = r.a.Name
	}
	w.tooMany()
	w.rss()
	// Detached addresses rest.
	gone := results[7]
	w.weft(gone.host, "detach", gone.a.Name)
	detached := time.Now()
	w.tooMany()
	if _, err := w.try(gone.host, "weft", "run", "full", "--ip", gone.a.Address.Addr().String(), "--", "true"); err == nil || !strings.Contains(err.Error(), "quarantine") {
		t.Errorf("the address of a detached endpoint was given out at once, or the refusal does not say why: %v", err)
	}
	var again api.Attachment
	w.eventually(quarantine+15*time.Second, "the address comes back", func() error {
		out, err := w.try("n3", "weft", "run", "full", "--detach", "--name", "again", "-o", "json", "--", "sleep", "infinity")
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(out), &again)
	})
	if rest := time.Since(detached); rest < quarantine || again.Address != gone.a.Address {
		t.Errorf("after %.1f s %s was given out, want %s after %v", rest.Seconds(), again.Address, gone.a.Address, quarantine)
	}
	// Everybody is reachable: the last on each host from the first on the next.
	for i := range 3 {
		from, to := results[i], results[usable-1-i]
		if to.a.Name == gone.a.Name {
			continue
		}
		if p := w.ping(from.host, from.a.Name, to.a.Address.Addr().String(), 3, 10*time.Millisecond, 84); p.Received != 3 {
			t.Errorf("%s to %s: %+v", from.a.Name, to.a.Name, p)
		}
	}
}

// tooMany attaches one endpoint too many, and wants the numbers.
func (w *world) tooMany() {
	w.t.Helper()
	_, err := w.try("n2", "weft", "run", "full", "--", "true")
	if err == nil {
		w.t.Fatal("an endpoint too many was attached")
	}
	for _, want := range []string{"253 usable", "used", "quarantined", "spare"} {
		if !strings.Contains(err.Error(), want) {
			w.t.Errorf("the refusal does not say %q: %v", want, err)
		}
	}
}

// rss logs the agents' memory; the promise about it is measured without the race detector, by `make bench`.
func (w *world) rss() {
	w.t.Helper()
	for _, h := range w.Nodes() {
		pid, err := w.AgentPID(h)
		if err != nil {
			w.t.Fatal(err)
		}
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			w.t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			if strings.HasPrefix(line, "VmRSS") {
				w.t.Logf("agent of %s: %s", h, strings.TrimSpace(line))
			}
		}
	}
}
