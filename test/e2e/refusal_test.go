package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/pkg/lab"
)

// TestRefusals gives weft bad input of every kind: one line that says what to do, exit code 1 or 2, and nothing
// half-made left behind.
func TestRefusals(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("refuse", "--subnet", "10.60.0.0/24", "--ip-range", "10.60.0.128/25")
	w.endpoint("n1", n.Name, "taken", "--ip", "10.60.0.200")
	w.endpoint("n2", n.Name, "far", "--ip", "10.60.0.210")
	time.Sleep(300 * time.Millisecond)
	before := w.traces("n1")
	for _, c := range []struct {
		name string
		args string
		code int
		say  []string
	}{
		{"malformed CIDR", "network create bad --subnet 10.0.0", 1, []string{"10.0.0"}},
		{"host bits set", "network create bad --subnet 10.61.0.7/24", 1, []string{"10.61.0.0/24"}},
		{"subnet too small", "network create bad --subnet 10.61.0.0/30", 1, []string{"too small", "/29"}},
		{"gateway outside", "network create bad --subnet 10.61.0.0/24 --gateway 10.62.0.1", 1, []string{"10.62.0.1", "10.61.0.0/24"}},
		{"range outside", "network create bad --subnet 10.61.0.0/24 --ip-range 10.62.0.0/25", 1, []string{"10.62.0.0/25"}},
		{"MTU too large", "network create bad --mtu 9000", 1, []string{"9000", "1450"}},
		{"bad name", "network create bad/name", 1, []string{"bad/name"}},
		{"reserved name", "network create host", 1, []string{"reserved"}},
		{"name taken", "network create refuse", 1, []string{"exists"}},
		{"overlap", "network create bad --subnet 10.60.0.0/16", 1, []string{"refuse", "--allow-overlap"}},
		{"unknown network", "run nowhere -- true", 1, []string{"nowhere", "refuse"}},
		{"unknown network, inspect", "network inspect nowhere", 1, []string{"nowhere"}},
		{"network in use", "network rm refuse", 1, []string{"taken", "far", "detach"}},
		{"address taken here", "run refuse --ip 10.60.0.200 -- true", 1, []string{"10.60.0.200", "taken"}},
		{"address taken elsewhere", "run refuse --ip 10.60.0.210 -- true", 1, []string{"10.60.0.210", "n2"}},
		{"address outside", "run refuse --ip 10.61.0.9 -- true", 1, []string{"10.61.0.9", "10.60.0.0/24"}},
		{"gateway's address", "run refuse --ip 10.60.0.1 -- true", 1, []string{"10.60.0.1"}},
		{"no address", "run refuse --ip banana -- true", 1, []string{"banana"}},
		{"endpoint name taken here", "run refuse --name taken -- true", 1, []string{"taken"}},
		{"endpoint name taken elsewhere", "run refuse --name far -- true", 1, []string{"far", "n2"}},
		{"missing namespace", "attach refuse --netns /run/netns/nothing", 1, []string{"/run/netns/nothing"}},
		{"not a namespace", "attach refuse --netns /etc/passwd", 1, []string{"/etc/passwd"}},
		{"host's own namespace", "attach refuse --pid 1", 1, []string{"own"}},
		{"weft's own namespace", "attach refuse --netns /run/netns/weft-t", 1, []string{"weft-t", "own"}},
		{"no such process", "attach refuse --pid 999999", 1, []string{"999999"}},
		{"interface name", "attach refuse --pid 1 --ifname far-too-long-for-this", 1, []string{"15"}},
		{"unknown endpoint", "detach nobody", 1, []string{"nobody"}},
		{"endpoint of another node", "detach far", 1, []string{"n2"}},
		{"command not found", "run refuse -- /no/such/program", 127, []string{"/no/such/program"}},
		{"unknown node", "node inspect n9", 1, []string{"n9"}},
		{"living node", "node rm n2", 1, []string{"n2", "leave"}},
		{"itself", "node rm n1", 1, []string{"leave"}},
		{"leave with endpoints", "leave", 1, []string{"taken", "--force"}},
		{"unknown command", "netwrok ls", 2, []string{"network"}},
		{"unknown flag", "network create bad --subnett 10.0.0.0/24", 2, []string{"subnett"}},
		{"missing argument", "network create", 2, nil},
		{"attach without a namespace", "attach refuse", 2, []string{"--netns", "--pid"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stderr := (&world{w.Lab, t}).fails("n1", append([]string{"weft"}, strings.Fields(c.args)...)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d: %s", code, c.code, stderr)
			}
			if lines := strings.Count(strings.TrimSpace(stderr), "\n"); lines > 0 && code == 1 || strings.TrimSpace(stderr) == "" {
				t.Errorf("not one line: %q", stderr)
			}
			for _, s := range c.say {
				if !strings.Contains(stderr, s) {
					t.Errorf("it does not say %q: %s", s, stderr)
				}
			}
		})
	}
	if code, stderr := w.fails("n1", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "weft", "status"); code != 1 || !strings.Contains(stderr, "root") {
		t.Errorf("not root: exit code %d: %s", code, stderr)
	}
	w.eventually(8*time.Second, "nothing half-made is left", func() error {
		if after := w.traces("n1"); after != before {
			return fmt.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		return nil
	})
}

// traces is everything on a host that a failed attach or create could leave.
func (w *world) traces(host string) string {
	w.t.Helper()
	return w.run(host, "sh", "-c", "ls /run/netns; for n in /run/netns/weft-n-*; do ip netns exec $(basename $n) ip -o link | cut -d: -f2; done; weft endpoint ls; weft network ls; "+
		"consul kv get -keys -recurse weft/leases/refuse/ | wc -l | sed 's/^[0-9]*$/x/'; ls /run/weft/resolv 2>/dev/null")
}

// fails runs argv and returns its exit code and what it printed on standard error.
func (w *world) fails(host string, argv ...string) (int, string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := w.CommandContext(ctx, host, argv...)
	var out, stderr buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("%v: %v", argv, err)
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

// TestConsulAway starts an agent while Consul is unreachable: it waits, says so, and keeps the data path that was there;
// a new attach works from a spare lease.
func TestConsulAway(t *testing.T) {
	w := ownWorld(t, lab.Options{Nodes: 2})
	for _, f := range [][]string{{"away", "--encrypted"}} {
		w.weft("n1", append([]string{"network", "create"}, f...)...)
	}
	w.eventually(5*time.Second, "network known", func() error { _, err := w.try("n2", "weft", "network", "inspect", "away"); return err })
	w.endpoint("n1", "away", "away-a")
	b := w.endpoint("n2", "away", "away-b")
	time.Sleep(2 * time.Second) // spares are fetched in the background
	ctx := context.Background()
	steady := w.startPing("n1", "away-a", b.Address.Addr().String(), 800, 10*time.Millisecond, 84)
	time.Sleep(time.Second) // it runs: `weft exec` needs the agent to begin
	if err := w.StopAgent(ctx, "n1", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := w.StopConsul(ctx, "n1", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := w.StartAgent(ctx, "n1"); err != nil {
		t.Fatal(err)
	}
	w.eventually(10*time.Second, "status tells of Consul", func() error {
		out, err := w.try("n1", "weft", "status")
		if err != nil {
			return err
		}
		if !strings.Contains(out, "refused") {
			return errors.New(out)
		}
		return nil
	})
	s := w.status("n1")
	if s.Consul.OK || s.Consul.Error == "" || len(s.Problems) == 0 || len(s.Networks) != 1 || s.Networks[0].Local != 1 {
		t.Errorf("status while Consul is away: %+v", s)
	}
	c := w.endpoint("n1", "away", "away-c")
	if p := w.ping("n1", "away-a", c.Address.Addr().String(), 3, 10*time.Millisecond, 84); p.Received != 3 {
		t.Errorf("an endpoint attached while Consul is away: %+v", p)
	}
	var p pings
	steady.result(&p)
	if p.Received != p.Sent {
		t.Errorf("lost %d of %d pings: %v", p.Sent-p.Received, p.Sent, p.Lost)
	}
	if err := w.StartConsul(ctx, "n1"); err != nil {
		t.Fatal(err)
	}
	w.eventually(20*time.Second, "the other node learns of the new endpoint", func() error {
		if p := w.ping("n2", "away-b", c.Address.Addr().String(), 1, 100*time.Millisecond, 84); p.Received != 1 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	w.eventually(15*time.Second, "status is well again", func() error {
		if s := w.status("n1"); !s.Consul.OK || len(s.Problems) > 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}
