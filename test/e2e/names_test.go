package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/pkg/api"
)

// nameWatch asks for names from an endpoint until stop.
type nameWatch struct {
	w    *world
	r    *running
	file string
}

// file makes a file that the hosts see too, for a tool to wait on.
func (w *world) file(name string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), name)
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *world) remove(path string) {
	w.t.Helper()
	if err := os.Remove(path); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) watchNames(host, endpoint string, server api.Attachment, interval time.Duration, names ...string) *nameWatch {
	w.t.Helper()
	n := &nameWatch{w: w, file: w.file("names-" + host)}
	args := append([]string{"names", server.Gateway.String() + ":53", interval.String(), n.file}, names...)
	n.r = w.start(host, in(endpoint, tool(args...)))
	time.Sleep(300 * time.Millisecond) // it has asked for each name
	return n
}

func (n *nameWatch) stop() []change {
	n.w.t.Helper()
	n.w.remove(n.file)
	var out []change
	n.r.result(&out)
	return out
}

// when is the first moment after from at which name had exactly these addresses.
func when(all []change, from time.Time, name string, addrs ...string) (time.Duration, bool) {
	slices.Sort(addrs)
	for _, c := range all {
		if c.Name == name && slices.Equal(c.Addrs, addrs) && c.At.After(from) {
			return c.At.Sub(from), true
		}
	}
	return 0, false
}

func p95(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[(len(d)*95+99)/100-1]
}

// TestNamesFollow: a name is there on the other host within 100 ms of its attach (p95), and goes with its detach.
func TestNamesFollow(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("follow", "--encrypted")
	asker := w.endpoint("n2", n.Name, "asker")
	const count = 20
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("s%d.follow.weft", i))
	}
	watch := w.watchNames("n2", "asker", asker, 10*time.Millisecond, names...)
	var attaching, attached, detaching, detached []time.Time
	var addrs []string
	for i, name := range names {
		service, _, _ := strings.Cut(name, ".")
		attaching = append(attaching, time.Now())
		a := w.endpoint("n1", n.Name, fmt.Sprintf("e%d", i), "--service", service)
		attached, addrs = append(attached, time.Now()), append(addrs, a.Address.Addr().String())
	}
	for i := range names {
		detaching = append(detaching, time.Now())
		w.weft("n1", "detach", fmt.Sprintf("e%d", i))
		detached = append(detached, time.Now())
	}
	time.Sleep(time.Second)
	all := watch.stop()
	var appear, vanish []time.Duration
	for i, name := range names {
		// The name may be there before the command has ended.
		d, ok := when(all, attaching[i], name, addrs[i])
		if !ok {
			t.Errorf("name %s was never answered with %s: %v", name, addrs[i], all)
			continue
		}
		appear = append(appear, max(0, d-attached[i].Sub(attaching[i])))
		d, ok = when(all, detaching[i], name)
		if !ok {
			t.Errorf("name %s was still answered after its detach", name)
			continue
		}
		vanish = append(vanish, max(0, d-detached[i].Sub(detaching[i])))
	}
	if t.Failed() {
		return
	}
	a, v := p95(appear), p95(vanish)
	t.Logf("%d names: on the other host p95 %v after attach, gone p95 %v after detach (longest %v, %v)", count, a, v, appear[count-1], vanish[count-1])
	if a > 100*time.Millisecond {
		t.Errorf("names appear %v after the attach (p95), want at most 100 ms", a)
	}
	if v > time.Second {
		t.Errorf("names vanish %v after the detach (p95), want at most 1 s", v)
	}
}

// TestHealthKill: an instance whose program stops answering leaves the answers on the other host within its interval and
// a second; when all fail, all are answered.
func TestHealthKill(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("health", "--encrypted")
	asker := w.endpoint("n3", n.Name, "asker")
	const interval = time.Second
	served := map[string]string{}
	addr := map[string]string{}
	for host, check := range map[string]string{"n1": "tcp:8080", "n2": "http:8080/healthz"} {
		served[host] = w.file("serve-" + host)
		var a api.Attachment
		args := []string{"weft", "run", n.Name, "--detach", "--name", "web-" + host, "--service", "web", "--health", check,
			"--health-interval", interval.String(), "-o", "json", "--"}
		w.runJSON(&a, host, append(args, tool("serve", "8080", served[host])...))
		addr[host] = a.Address.Addr().String()
	}
	both := []string{addr["n1"], addr["n2"]}
	w.eventually(5*time.Second, "both pass their checks", func() error {
		var s api.Service
		w.weftJSON(&s, "n3", "service", "inspect", "web", "--network", n.Name)
		for _, i := range s.Instances {
			if i.Health != "passing" {
				return fmt.Errorf("%+v", i)
			}
		}
		return nil
	})
	watch := w.watchNames("n3", "asker", asker, 5*time.Millisecond, "web")
	killed := time.Now()
	w.remove(served["n1"])
	time.Sleep(interval + 1500*time.Millisecond)
	second := time.Now()
	w.remove(served["n2"])
	time.Sleep(interval + 1500*time.Millisecond)
	all := watch.stop()
	d, ok := when(all, killed, "web", addr["n2"])
	t.Logf("failing instance left out after %v", d)
	if !ok || d > interval+time.Second {
		t.Errorf("failing instance left out after %v (%v), want at most %v: %v", d, ok, interval+time.Second, all)
	}
	if d, ok := when(all, second, "web", slices.Clone(both)...); !ok || d > interval+time.Second {
		t.Errorf("with all failing, all are answered after %v (%v): %v", d, ok, all)
	}
}

func (w *world) runJSON(v any, host string, argv []string) {
	w.t.Helper()
	out := w.run(host, argv...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		w.t.Fatalf("%v prints no JSON: %v\n%s", argv, err, out)
	}
}

// TestCheckCommand: a command runs in the endpoint's own namespace.
func TestCheckCommand(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("cmdcheck")
	a := w.endpoint("n1", n.Name, "cmd", "--service", "job", "--health", "cmd:ip -4 -o addr show dev eth0 | grep -q \" $WEFT_ADDRESS/\"",
		"--health-interval", "500ms")
	w.eventually(3*time.Second, "the check passes", func() error {
		var e api.Endpoint
		w.weftJSON(&e, "n1", "endpoint", "inspect", string(a.ID))
		if e.Health != "passing" {
			return fmt.Errorf("health is %q", e.Health)
		}
		return nil
	})
}

// TestDrain: names go first, the endpoint a TTL later; with --keep it stays.
func TestDrain(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("drain", "--encrypted")
	asker := w.endpoint("n2", n.Name, "asker")
	a := w.endpoint("n1", n.Name, "leaver", "--service", "web")
	b := w.endpoint("n1", n.Name, "stayer", "--service", "web")
	watch := w.watchNames("n2", "asker", asker, 5*time.Millisecond, "web", "leaver.drain")
	start := time.Now()
	w.weft("n1", "drain", "leaver")
	took := time.Since(start)
	all := watch.stop()
	if took < 5*time.Second {
		t.Errorf("the endpoint was detached after %v, before the TTL of its names was over", took)
	}
	if d, ok := when(all, start, "web", b.Address.Addr().String()); !ok || d > time.Second {
		t.Errorf("its service's name lost it after %v (%v): %v", d, ok, all)
	}
	if d, ok := when(all, start, "leaver.drain"); !ok || d > time.Second {
		t.Errorf("its own name went after %v (%v): %v", d, ok, all)
	}
	if out := w.weft("n1", "endpoint", "ls"); strings.Contains(out, string(a.ID)) {
		t.Errorf("still there:\n%s", out)
	}
	w.weft("n1", "drain", "stayer", "--keep")
	var e api.Endpoint
	w.weftJSON(&e, "n1", "endpoint", "inspect", "stayer")
	if e.Health != "draining" || e.State != "up" {
		t.Errorf("a kept endpoint is %+v", e)
	}
}

// TestCatalog: services stand in Consul's catalog while their endpoint does, and what an agent left behind is cleaned.
func TestCatalog(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("catalog")
	a := w.endpoint("n1", n.Name, "cat-1", "--service", "cat", "--port", "http=8080")
	dig := func() string {
		out, err := w.try("n2", "consul", "catalog", "nodes", "-service", "weft-cat")
		if err != nil {
			return err.Error()
		}
		return out
	}
	there := func(want bool) func() error {
		return func() error {
			if out := dig(); strings.Contains(out, "n1") != want {
				return fmt.Errorf("the catalog says %q", out)
			}
			return nil
		}
	}
	w.eventually(5*time.Second, "weft-cat in the catalog", there(true))
	if out := askA2(w, "n2", "weft-cat.service.consul"); !strings.Contains(out, a.Address.Addr().String()) {
		t.Errorf("Consul's names through weft: %s", out)
	}
	// The agent dies, the endpoint with it, and nobody else may clean up but the next agent.
	if err := w.StopAgent(context.Background(), "n1", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e := w.pidsNamed("n1", "sleep")
	for _, pid := range e {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	w.startAgent("n1")
	w.eventually(10*time.Second, "weft-cat gone from the catalog", there(false))
}

// askA2 is what a host's weft says about a name as its own listener or network "catalog" is asked.
func askA2(w *world, host, name string) string {
	out, err := w.try(host, "weft", "dns", "query", name, "--network", "catalog")
	if err != nil {
		return err.Error()
	}
	return out
}

// pidsNamed lists the processes of a host whose command is name.
func (w *world) pidsNamed(host, name string) (out []int) {
	w.t.Helper()
	pids, err := w.Pids(host)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, pid := range pids {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err == nil && strings.TrimSpace(string(comm)) == name {
			out = append(out, pid)
		}
	}
	return out
}
