package docs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/pkg/lab"
)

const (
	management = "11111111-2222-3333-4444-555555555555"
	tokenFile  = "/run/weft-token" // each host of the lab has a /run of its own
)

// guarded is a lab whose Consul denies by default.
type guarded struct {
	*lab.Lab
	t *testing.T
}

// TestPolicies runs two agents through their lives with the policies of deploy/consul, on a Consul that denies by
// default, and sees that each token opens nothing else.
func TestPolicies(t *testing.T) {
	needLab(t)
	g := guardedLab(t)
	tokens := map[string]string{}
	for _, n := range g.Nodes() {
		tokens[n] = g.token("weft-agent-"+n, strings.NewReplacer("CONSUL_NODE", n, "NODE", n).Replace(read(t, "deploy/consul/agent.hcl")))
		g.run(n, "sh", "-ec", "umask 077; echo "+tokens[n]+" > "+tokenFile)
		if err := g.StartAgent(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range g.Nodes() {
		if err := g.WaitReady(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	g.lives()
	t.Run("agent", func(t *testing.T) { (&guarded{g.Lab, t}).agentLimits(tokens["n1"]) })
	t.Run("operator", func(t *testing.T) { (&guarded{g.Lab, t}).operator() })
	t.Run("readonly", func(t *testing.T) { (&guarded{g.Lab, t}).readonly() })
	t.Run("goodbye", func(t *testing.T) { (&guarded{g.Lab, t}).goodbye() })
}

// lives is what an agent's token must be enough for.
func (g *guarded) lives() {
	g.t.Helper()
	g.run("n1", "weft", "network", "create", "tight", "--encrypted", "--subnet", "10.60.0.0/24")
	g.eventually("n2", "weft", "network", "inspect", "tight")
	g.run("n1", "weft", "run", "tight", "--detach", "--name", "a", "--", "sleep", "infinity")
	g.run("n2", "weft", "run", "tight", "--detach", "--name", "b", "--service", "s", "--", "sleep", "infinity")
	g.eventually("n1", "weft", "run", "tight", "--", "getent", "hosts", "s") // and its address goes into quarantine
	g.eventually("n1", "weft", "status", "--check")
	g.passing("weft:data-path", "weft:mesh")
	if log, err := g.LogPath("n1", "agent"); err != nil || strings.Contains(g.run("n1", "cat", log), "ermission denied") {
		g.t.Errorf("n1 was denied something: %v\n%s", err, g.run("n1", "cat", log))
	}
}

// goodbye: what leave and node rm need.
func (g *guarded) goodbye() {
	g.t.Helper()
	g.run("n2", "weft", "leave", "--force")
	g.eventually("n1", "sh", "-c", "weft node inspect n2 | grep -w left")
	if out := g.run("n1", "sh", "-c", "consul kv get -token="+management+" -recurse weft/leases/ | grep -c '\"n2\"' || true"); strings.TrimSpace(out) != "0" {
		g.t.Errorf("n2 left, and its leases are still there: %s", out)
	}
	g.eventually("n1", "sh", "-c", "! consul catalog nodes -token="+management+" -service=weft | grep -w n2")
	if err := g.StartAgent(g.t.Context(), "n2"); err != nil { // it comes back, and then its host dies
		g.t.Fatal(err)
	}
	if err := g.WaitReady(g.t.Context(), "n2"); err != nil {
		g.t.Fatal(err)
	}
	if err := g.StopAgent(g.t.Context(), "n2", unix.SIGKILL); err != nil {
		g.t.Fatal(err)
	}
	g.run("n2", "ip", "link", "set", "eth0", "down")
	g.eventually("n1", "weft", "node", "rm", "n2")
	g.run("n1", "weft", "detach", "a")
	g.run("n1", "weft", "network", "rm", "tight")
}

// agentLimits: an agent's token writes nothing in another node's name, and nothing outside the folder.
func (g *guarded) agentLimits(token string) {
	for _, key := range []string{"weft/nodes/n2", "weft/endpoints/n2/tight", "weft/revs/nodes/n2", "weft/mirror/x", "other/x"} {
		g.denied("n1", "consul", "kv", "put", "-token="+token, key, "x")
		g.denied("n1", "consul", "kv", "delete", "-token="+token, key)
	}
	// A full network calls for spare addresses; filling one takes longer than asking.
	g.run("n1", "consul", "kv", "put", "-token="+token, "weft/recall/tight", `{"node": "n1"}`)
	g.denied("n1", "consul", "kv", "get", "-token="+token, "other/y")
	g.denied("n1", "consul", "services", "register", "-token="+token, "-name=web")
	g.denied("n1", "consul", "acl", "token", "list", "-token="+token)
}

// operator: saving, restoring and wiping the folder, and nothing else.
func (g *guarded) operator() {
	token := g.token("weft-operator", read(g.t, "deploy/consul/operator.hcl"))
	g.run("n1", "sh", "-ec", `export CONSUL_HTTP_TOKEN=`+token+`
		consul kv export weft/ > /run/backup.json
		consul kv delete -recurse weft/
		consul kv import @/run/backup.json`)
	g.eventually("n1", "sh", "-c", "weft status --check && weft network inspect tight")
	g.run("n1", "consul", "catalog", "nodes", "-token="+token, "-service=weft")
	g.denied("n1", "consul", "kv", "put", "-token="+token, "other/x", "x")
	g.denied("n1", "consul", "services", "register", "-token="+token, "-name=web")
	g.denied("n1", "consul", "acl", "token", "list", "-token="+token)
}

func (g *guarded) readonly() {
	token := g.token("weft-readonly", read(g.t, "deploy/consul/readonly.hcl"))
	if out := g.run("n1", "consul", "kv", "get", "-token="+token, "-recurse", "weft/"); !strings.Contains(out, "networks/tight") {
		g.t.Errorf("it reads %s", out)
	}
	if out := g.run("n1", "consul", "catalog", "nodes", "-token="+token, "-service=weft"); !strings.Contains(out, "n2") {
		g.t.Errorf("it sees the agents %s", out)
	}
	for _, key := range []string{"weft/cluster", "weft/leases/tight/10.60.0.3", "other/x"} {
		g.denied("n1", "consul", "kv", "put", "-token="+token, key, "x")
	}
	g.denied("n1", "consul", "services", "deregister", "-token="+token, "-id=weft-n1")
}

// guardedLab makes a lab without agents and turns Consul's access control on: its own agents have a token that may do
// everything, everybody else needs one.
func guardedLab(t *testing.T) *guarded {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	bin := filepath.Join(work, "bin")
	l, err := lab.Up(ctx, lab.Options{Name: fmt.Sprintf("docs-acl-%d", os.Getpid()), Nodes: 2, NoAgents: true, Weft: bin + "/weft", Consul: bin + "/consul",
		ConfigExtra: "consul: {token_file: " + tokenFile + "}"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Errorf("lab not taken down: %v", err)
		}
	})
	for _, host := range []string{lab.Consul, "n1", "n2"} {
		guard(t, filepath.Join(l.Dir(), host, "consul.json"), host == lab.Consul)
		if err := l.StopConsul(ctx, host, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range []string{lab.Consul, "n1", "n2"} {
		if err := l.StartConsul(ctx, host); err != nil {
			t.Fatal(err)
		}
	}
	g := &guarded{l, t}
	for _, host := range []string{lab.Consul, "n1", "n2"} {
		g.eventually(host, "consul", "acl", "token", "list", "-token="+management)
	}
	return g
}

// guard adds access control to the configuration of a Consul agent.
func guard(t *testing.T, file string, server bool) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := map[string]any{}
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	tokens := map[string]any{"agent": management}
	if server {
		tokens["initial_management"] = management
	}
	c["acl"] = map[string]any{"enabled": true, "default_policy": "deny", "tokens": tokens}
	if data, err = json.Marshal(c); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// token makes a token with the given rules and returns its secret.
func (g *guarded) token(name, rules string) string {
	g.t.Helper()
	cmd := g.CommandContext(g.t.Context(), lab.Consul, "consul", "acl", "policy", "create", "-token="+management, "-name="+name, "-rules=-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		g.t.Fatalf("policy %s: %v\n%s", name, err, out)
	}
	for line := range strings.Lines(g.run(lab.Consul, "consul", "acl", "token", "create", "-token="+management, "-policy-name="+name)) {
		if id, ok := strings.CutPrefix(line, "SecretID:"); ok {
			return strings.TrimSpace(id)
		}
	}
	g.t.Fatalf("no token of policy %s", name)
	return ""
}

// passing waits until the checks of both agents have left their first state.
func (g *guarded) passing(checks ...string) {
	g.t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return g.Dial(ctx, "n1", network, address)
		}}}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		req, err := http.NewRequestWithContext(g.t.Context(), http.MethodGet, "http://127.0.0.1:8500/v1/health/checks/weft", nil)
		if err != nil {
			g.t.Fatal(err)
		}
		req.Header.Set("X-Consul-Token", management)
		var found []struct{ Name, Status, Output string }
		resp, err := client.Do(req)
		if err == nil {
			err = errors.Join(json.NewDecoder(resp.Body).Decode(&found), resp.Body.Close())
		}
		good := 0
		for _, c := range found {
			if slices.Contains(checks, c.Name) && c.Status == "passing" {
				good++
			}
		}
		if good == 2*len(checks) {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("checks do not pass: %v %+v", err, found)
		}
	}
}

func (g *guarded) try(host string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(g.t.Context(), 30*time.Second)
	defer cancel()
	return g.Output(ctx, host, argv...)
}

func (g *guarded) run(host string, argv ...string) string {
	g.t.Helper()
	out, err := g.try(host, argv...)
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

// eventually runs argv until it succeeds.
func (g *guarded) eventually(host string, argv ...string) {
	g.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		_, err := g.try(host, argv...)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatal(err)
		}
	}
}

// denied runs argv, which must fail for want of rights.
func (g *guarded) denied(host string, argv ...string) {
	g.t.Helper()
	out, err := g.try(host, argv...)
	if err == nil || !strings.Contains(err.Error(), "ermission denied") && !strings.Contains(err.Error(), "lacks permission") && !strings.Contains(err.Error(), "No key exists") {
		g.t.Errorf("%v was not denied: %v %s", argv, err, out)
	}
}
