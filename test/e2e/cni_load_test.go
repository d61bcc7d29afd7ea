package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/pkg/lab"
)

// TestCNIParallel: 200 containers come at once and go at once, and leave nothing.
func TestCNIParallel(t *testing.T) {
	const count = 200
	w := cniWorld(t)
	n := w.network("cni-many", "--subnet", "10.178.0.0/23")
	w.run("n1", "sh", "-c", fmt.Sprintf("for i in $(seq %d); do ip netns add cni-m$i; done", count))
	t.Cleanup(func() {
		w.run("n1", "sh", "-c", fmt.Sprintf("for i in $(seq %d); do ip netns del cni-m$i; done", count))
	})
	before := w.run("n1", "sh", "-c", "ls /run/netns; ip -o link | cut -d: -f2")
	for _, command := range []string{"ADD", "DEL"} {
		began := time.Now()
		var group sync.WaitGroup
		errs := make(chan error, count)
		addresses := make(chan string, count)
		for i := 1; i <= count; i++ {
			group.Go(func() {
				r, err := w.cni("n1", call{command: command, container: fmt.Sprintf("m%d", i), ifname: "eth0",
					netns: fmt.Sprintf("/run/netns/cni-m%d", i), config: config("conf", n.Name)})
				if err != nil {
					errs <- err
				} else if command == "ADD" {
					addresses <- r.IPs[0].Address
				}
			})
		}
		group.Wait()
		close(errs)
		close(addresses)
		for err := range errs {
			t.Errorf("%s: %v", command, err)
		}
		t.Logf("%d %ss in %v", count, command, time.Since(began).Round(time.Millisecond))
		if command == "DEL" || t.Failed() {
			continue
		}
		seen := map[string]bool{}
		for a := range addresses {
			if seen[a] {
				t.Errorf("two containers have %s", a)
			}
			seen[a] = true
		}
		// One of them, whichever, works.
		if out := w.run("n1", "ip", "netns", "exec", "cni-m1", "ping", "-c1", "-W2", n.Gateway.String()); !strings.Contains(out, "1 received") {
			t.Error(out)
		}
	}
	w.settle("n1", n.Name)
	w.eventually(10*time.Second, "no namespace and no link is left", func() error {
		if after := w.run("n1", "sh", "-c", "ls /run/netns; ip -o link | cut -d: -f2"); after != before && !strings.Contains(after, "weft-n-") {
			return fmt.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		return nil
	})
	used := w.run("n1", "sh", "-c", "consul kv get -recurse weft/leases/cni-many/ | grep -c '\"used\"'; true")
	if strings.TrimSpace(used) != "0" {
		t.Errorf("%s leases are still in use", used)
	}
}

// TestCNIKilled kills ADD and DEL in the middle: after GC, which runtimes do when they have lost count, nothing is left.
func TestCNIKilled(t *testing.T) {
	w := cniWorld(t)
	n := w.network("cni-kill", "--subnet", "10.179.0.0/24")
	w.netns("n1", "cni-kill")
	killed, finished := 0, 0
	for i := range 40 {
		c := call{command: "ADD", container: fmt.Sprintf("k%d", i), ifname: fmt.Sprintf("eth%d", i), netns: "/run/netns/cni-kill", config: config("conf", n.Name)}
		if i%4 == 3 {
			w.mustCNI("n1", c)
			c.command = "DEL"
		}
		ctx, cancel := context.WithTimeout(context.Background(), rand.N(60*time.Millisecond))
		cmd := w.plugin("n1", c)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			finished++
		case <-ctx.Done():
			if err := cmd.Process.Signal(sigKill); err != nil {
				t.Error(err)
			}
			<-done
			killed++
		}
		cancel()
	}
	t.Logf("%d killed, %d finished", killed, finished)
	if killed == 0 {
		t.Error("none was killed: the test shows nothing")
	}
	w.eventually(20*time.Second, "GC leaves nothing", func() error {
		if _, err := w.cni("n1", call{command: "GC", config: config("conf", n.Name)}); err != nil {
			return err
		}
		if ids := w.local("n1", n.Name); len(ids) > 0 {
			return fmt.Errorf("%v", ids)
		}
		return nil
	})
	w.settle("n1", n.Name)
	if left := w.run("n1", "ip", "-n", "cni-kill", "-o", "link"); strings.Contains(left, "eth") {
		t.Errorf("interfaces left: %s", left)
	}
}

// TestCNIHostRoute: the host reaches the container and nobody behind the host does, through restarts, until DEL.
func TestCNIHostRoute(t *testing.T) {
	w := cniWorld(t)
	n := w.network("cni-host", "--encrypted", "--subnet", "10.185.0.0/24")
	conf := with(config("conf", n.Name), "weft", map[string]any{"network": n.Name, "hostRoute": true})
	c := call{command: "ADD", container: "c1", netns: w.netns("n1", "cni-host"), ifname: "eth0", config: conf}
	r := w.mustCNI("n1", c)
	address, _, _ := strings.Cut(r.IPs[0].Address, "/")
	ping := func(host string) error {
		_, err := w.try(host, "ping", "-c1", "-W1", address)
		return err
	}
	w.eventually(5*time.Second, "the host reaches its container", func() error { return ping("n1") })
	w.killAgent("n1")
	w.startAgent("n1")
	if err := ping("n1"); err != nil {
		t.Errorf("after a restart of the agent: %v", err)
	}
	// A neighbour that knows the way is not let through.
	via := strings.Fields(w.run("n1", "ip", "-o", "-4", "addr", "show", "eth0"))[3]
	via, _, _ = strings.Cut(via, "/")
	w.run("n2", "ip", "route", "add", address+"/32", "via", via)
	if ping("n2") == nil {
		t.Error("a neighbour reaches the container by a route over its host")
	}
	w.run("n2", "ip", "route", "del", address+"/32")
	// The host's own places are not taken from it.
	w.run("n1", "ip", "route", "add", "10.185.0.128/25", "dev", "lo")
	taken := c
	taken.container, taken.ifname = "c2", "eth1"
	taken.config = with(conf, "runtimeConfig", map[string]any{"ips": []string{"10.185.0.200"}})
	_, err := w.cni("n1", taken)
	wantCode(t, err, 100, "10.185.0.128/25")
	w.run("n1", "ip", "route", "del", "10.185.0.128/25", "dev", "lo")
	c.command = "DEL"
	w.mustCNI("n1", c)
	w.settle("n1", n.Name)
	if left := w.run("n1", "sh", "-c", "ip route | grep "+address+"; true"); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestCNISync: with cni.sync the runtimes' configurations come and go with the networks, and an operator's own stays.
func TestCNISync(t *testing.T) {
	w := ownWorld(t, lab.Options{Nodes: 1, ConfigExtra: "cni: {sync: true, dir: /run/net.d}"})
	list := func(want string) {
		t.Helper()
		w.eventually(10*time.Second, "the configurations are "+want, func() error {
			if got := strings.Join(strings.Fields(w.run("n1", "sh", "-c", "ls /run/net.d 2>/dev/null; true")), " "); got != want {
				return fmt.Errorf("got %q", got)
			}
			return nil
		})
	}
	w.eventually(10*time.Second, "the node has joined", func() error {
		_, err := w.try("n1", "weft", "network", "create", "one")
		return err
	})
	w.weft("n1", "network", "create", "two")
	list("50-weft-one.conflist 50-weft-two.conflist")
	w.weft("n1", "cni", "install", "two", "--dir", "/run/net.d", "--service", "web")
	w.weft("n1", "network", "rm", "one")
	list("50-weft-two.conflist")
	if text := w.run("n1", "cat", "/run/net.d/50-weft-two.conflist"); !strings.Contains(text, `"web"`) {
		t.Errorf("the operator's configuration was replaced:\n%s", text)
	}
}
