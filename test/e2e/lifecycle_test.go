package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/pkg/api"
	"weft/pkg/kstate"
	"weft/pkg/lab"
)

// TestLeaveAndRemove takes one node away by its own word and another by an operator's, and lets the first come back.
func TestLeaveAndRemove(t *testing.T) {
	w := ownWorld(t, lab.Options{})
	ctx := context.Background()
	w.weft("n1", "network", "create", "life", "--encrypted")
	w.known("life", "n1", "n2", "n3")
	w.endpoint("n1", "life", "stays")
	w.endpoint("n2", "life", "leaves")
	w.endpoint("n3", "life", "dies")

	// n2 leaves: refused while it has endpoints, then everything of it is gone.
	if _, err := w.try("n2", "weft", "leave"); err == nil || !strings.Contains(err.Error(), "leaves") {
		t.Fatalf("leave with an endpoint was not refused with its name: %v", err)
	}
	w.weft("n2", "leave", "--force")
	w.eventually(10*time.Second, "nothing of weft is left on n2", func() error {
		left := w.run("n2", "sh", "-c", "ls /run/netns; ip -o link | grep weft; nft list tables | grep weft; ls /run/wireguard; true")
		if strings.TrimSpace(left) != "" {
			return errors.New(left)
		}
		return nil
	})
	w.eventually(5*time.Second, "n1 knows that n2 left", func() error {
		var n api.Node
		w.weftJSON(&n, "n1", "node", "inspect", "n2")
		var net api.Network
		w.weftJSON(&net, "n1", "network", "inspect", "life")
		if !n.Left || len(net.Endpoints) != 2 || len(w.status("n1").Peers) != 1 {
			return fmt.Errorf("%+v %+v", n, net.Endpoints)
		}
		return nil
	})
	if keys := w.run("n1", "sh", "-c", "consul kv get -recurse weft/leases/ | grep -c '\"n2\"'; consul kv get -recurse weft/vteps/ | grep -c '\"n2\"'; true"); keys != "0\n0\n" {
		t.Errorf("leases of n2 are still there: %q", keys)
	}
	if out := w.run("n1", "consul", "catalog", "nodes", "-service=weft"); strings.Contains(out, "n2") {
		t.Errorf("n2 is still in the catalog:\n%s", out)
	}

	// n3 dies: its endpoints stay (silence is no goodbye) until an operator says so.
	if err := w.StopAgent(ctx, "n3", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := w.try("n1", "weft", "node", "rm", "n3"); err == nil || !strings.Contains(err.Error(), "alive") {
		t.Errorf("a node whose mesh still answers was removed: %v", err)
	}

	// n2 comes back under its name and identity.
	w.eventually(10*time.Second, "the agent of n2 has ended", func() error {
		if pid, err := w.AgentPID("n2"); err == nil {
			return fmt.Errorf("process %d", pid)
		}
		return nil
	})
	w.startAgent("n2")
	w.eventually(5*time.Second, "n2 is present again", func() error {
		var n api.Node
		w.weftJSON(&n, "n1", "node", "inspect", "n2")
		if n.Left {
			return errors.New("left")
		}
		return nil
	})
	w.known("life", "n1", "n2")
	back := w.endpoint("n2", "life", "back")
	w.eventually(5*time.Second, "the mesh carries again", func() error {
		if p := w.ping("n1", "stays", back.Address.Addr().String(), 3, 20*time.Millisecond, 84); p.Received != 3 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})

	// n3's host goes down: now an operator may remove it, and its endpoints and leases go.
	for _, p := range w.pidsOf("n3") {
		if err := unix.Kill(p, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
	}
	// The kernel's own WireGuard needs no process: its device goes by itself where it is the host that ends.
	w.run("n3", "sh", "-c", "ip netns exec weft-t ip link del "+kstate.WGName(1)+" 2>/dev/null; true")
	w.weft("n1", "node", "rm", "n3")
	w.eventually(5*time.Second, "n3 is gone on n2", func() error {
		var net api.Network
		w.weftJSON(&net, "n2", "network", "inspect", "life")
		for _, e := range net.Endpoints {
			if e.Node == "n3" {
				return fmt.Errorf("%+v", e)
			}
		}
		if fdb := w.run("n2", "sh", "-c", "ip netns exec weft-n-* bridge fdb show dev vxlan0 | grep -c 'self' ; true"); len(w.status("n2").Peers) != 1 {
			return fmt.Errorf("%+v %s", w.status("n2").Peers, fdb)
		}
		return nil
	})
	if keys := w.run("n1", "sh", "-c", "consul kv get -recurse weft/leases/ | grep -c '\"n3\"'; true"); keys != "0\n" {
		t.Errorf("leases of n3 are still there: %q", keys)
	}
	// Who comes later, and never saw n3, still knows the network: n1 signed it again.
	w.startAgent("n3")
	w.eventually(5*time.Second, "n3 is back by itself", func() error {
		var n api.Node
		w.weftJSON(&n, "n1", "node", "inspect", "n3")
		if n.Left {
			return errors.New("left")
		}
		return nil
	})
}

// pidsOf lists a host's weft and engine processes: ending them is what a power cut does to the mesh.
func (w *world) pidsOf(host string) []int {
	w.t.Helper()
	all, err := w.Pids(host)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []int
	for _, p := range all {
		if cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p)); err == nil && strings.Contains(string(cmd), "weft\x00") {
			out = append(out, p)
		}
	}
	return out
}

func (w *world) known(network string, hosts ...string) {
	w.t.Helper()
	for _, h := range hosts {
		w.eventually(5*time.Second, "network known on "+h, func() error { _, err := w.try(h, "weft", "network", "inspect", network); return err })
	}
}

// TestEgressBesideDocker sets the host's firewall as Docker does: FORWARD drops, with and without a chain DOCKER-USER.
func TestEgressBesideDocker(t *testing.T) {
	w := sharedWorld(t)
	if _, err := w.try("n3", "iptables", "-S"); err != nil {
		t.Skipf("needs iptables (nf_tables): %v", err)
	}
	n := w.network("dockered", "--encrypted")
	w.endpoint("n3", n.Name, "docked")
	out := w.underlay("out").String()
	reaches := func() error {
		if p := w.ping("n3", "docked", out, 3, 20*time.Millisecond, 84); p.Received != 3 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	}
	if err := reaches(); err != nil {
		t.Fatalf("egress before: %v", err)
	}
	for _, c := range []struct{ name, set, unset, chain string }{
		{"policy drop", "iptables -P FORWARD DROP", "iptables -P FORWARD ACCEPT", "FORWARD"},
		{"DOCKER-USER", "iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER; iptables -P FORWARD DROP",
			"iptables -P FORWARD ACCEPT; iptables -F FORWARD; nft flush chain ip filter DOCKER-USER '; delete chain ip filter DOCKER-USER'", "DOCKER-USER"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{w.Lab, t}
			w.run("n3", "sh", "-ec", c.set)
			defer w.run("n3", "sh", "-ec", c.unset)
			w.eventually(5*time.Second, "egress", reaches)
			w.eventually(5*time.Second, "iptables shows our rules in "+c.chain, func() error {
				rules := w.run("n3", "iptables", "-S", c.chain)
				if !strings.Contains(rules, "-i weftx+") || !strings.Contains(rules, "-o weftx+") {
					return errors.New(rules)
				}
				return nil
			})
			if err := reaches(); err != nil {
				t.Errorf("egress with our rules in place: %v", err)
			}
		})
	}
	if err := reaches(); err != nil {
		t.Errorf("egress after: %v", err)
	}
}

// TestWorkloadGone: an endpoint ends with its process, and with the namespace it was attached by.
func TestWorkloadGone(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("gone", "--encrypted")
	a := w.endpoint("n1", n.Name, "mortal")
	w.run("n1", "ip", "netns", "add", "blue")
	w.weft("n1", "attach", n.Name, "--netns", "/run/netns/blue", "--name", "blue", "--id", "blue-1")
	w.weft("n1", "attach", n.Name, "--netns", "/run/netns/blue", "--name", "blue", "--id", "blue-1") // again: the same
	if p := w.ping("n1", "mortal", "10.0.0.1", 1, 20*time.Millisecond, 84); p.Error != "" {
		t.Errorf("%+v", p)
	}
	if out := w.run("n1", "ip", "netns", "exec", "blue", "ip", "-o", "-4", "addr", "show", "dev", "eth0"); !strings.Contains(out, "10.") {
		t.Errorf("namespace blue has no address: %s", out)
	}
	var e api.Endpoint
	w.weftJSON(&e, "n1", "endpoint", "inspect", a.Name)
	w.run("n1", "kill", "-9", fmt.Sprint(e.PID))
	w.run("n1", "ip", "netns", "del", "blue")
	w.eventually(10*time.Second, "both endpoints are gone", func() error {
		if out := w.weft("n1", "endpoint", "ls"); strings.Contains(out, "mortal") || strings.Contains(out, "blue") {
			return errors.New(out)
		}
		return nil
	})
	w.eventually(5*time.Second, "their namespaces are gone", func() error {
		if out := w.run("n1", "sh", "-c", "ls /run/netns | grep weft-e || true"); out != "" {
			return errors.New(out)
		}
		return nil
	})
}

// TestDevAgent tries the newcomer's command: an agent with a throwaway Consul, which takes everything with it.
func TestDevAgent(t *testing.T) {
	w := ownWorld(t, lab.Options{Nodes: 1, NoAgents: true})
	r := w.start("n1", []string{"weft", "agent", "--dev", "--consul-binary", consulBinary})
	w.eventually(30*time.Second, "the agent has joined", func() error {
		var s api.Status
		out, err := w.try("n1", "weft", "status", "-o", "json")
		if err != nil {
			return fmt.Errorf("%w: %s", err, r.err.String())
		}
		if !strings.Contains(out, `"ok": true`) {
			return errors.New(out)
		}
		w.weftJSON(&s, "n1", "status")
		if s.Cluster == "" || !s.VTEP.IsValid() {
			return errors.New(out)
		}
		return nil
	})
	w.weft("n1", "network", "create", "try")
	w.eventually(5*time.Second, "network known", func() error { _, err := w.try("n1", "weft", "network", "inspect", "try"); return err })
	if out := w.weft("n1", "run", "try", "--", "ip", "-o", "-4", "addr", "show", "dev", "eth0"); !strings.Contains(out, "10.0.0.2/24") {
		t.Errorf("in the endpoint: %s", out)
	}
	if err := r.cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("the agent ended with %v:\n%s", err, r.err.String())
	}
	if left := w.run("n1", "sh", "-c", "ls /run/netns; ip -o link | grep weft; ls -d /tmp/weft-dev-* 2>/dev/null; true"); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// TestReload changes the configuration file of a running agent: what can change does, and what cannot is logged.
func TestReload(t *testing.T) {
	w := ownWorld(t, lab.Options{Nodes: 1})
	log, err := w.LogPath("n1", "agent")
	if err != nil {
		t.Fatal(err)
	}
	w.run("n1", "sh", "-ec", fmt.Sprintf(`f=%s; printf '\nlog:\n  level: debug\nvxlan:\n  port: 4799\n' >> $f`, w.Dir()+"/n1/weft.yaml"))
	w.eventually(10*time.Second, "the log tells of both settings", func() error {
		out := w.run("n1", "cat", log)
		if !strings.Contains(out, "log.level") || !strings.Contains(out, "vxlan.port") || !strings.Contains(out, "restart") {
			return errors.New(out[max(0, len(out)-1500):])
		}
		return nil
	})
	w.run("n1", "sh", "-ec", "echo 'nonsense: true' >> "+w.Dir()+"/n1/weft.yaml")
	w.eventually(10*time.Second, "a faulty file is reported and not used", func() error {
		if out := w.run("n1", "cat", log); !strings.Contains(out, "nonsense") {
			return errors.New(out[max(0, len(out)-1500):])
		}
		return nil
	})
	w.status("n1")
}

// TestPathMTU makes the way to a node too small for full-size packets: its peers find out and say so, and say so no
// longer when it is mended.
func TestPathMTU(t *testing.T) {
	w := ownWorld(t, lab.Options{Nodes: 2})
	path := func(want string, problem bool) func() error {
		return func() error {
			s := w.status("n1")
			if len(s.Peers) != 1 || s.Peers[0].Path != want {
				return fmt.Errorf("%+v", s.Peers)
			}
			for _, p := range s.Problems {
				if p.Subject == "peer n2" && strings.Contains(p.Message, "MTU") {
					if !problem {
						return fmt.Errorf("%+v", p)
					}
					return nil
				}
			}
			if problem {
				return fmt.Errorf("no problem is shown: %+v", s.Problems)
			}
			return nil
		}
	}
	w.eventually(60*time.Second, "the path is found to be well", path("ok", false))
	w.run("n2", "ip", "link", "set", "eth0", "mtu", "1400")
	w.eventually(60*time.Second, "the small path is found", path("small", true))
	w.run("n2", "ip", "link", "set", "eth0", "mtu", "1500")
	w.eventually(60*time.Second, "the mended path is found", path("ok", false))
}
