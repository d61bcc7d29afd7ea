package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/pkg/api"
	"weft/pkg/lab"
	"weft/pkg/overlay"
)

func command(bin string, args ...string) (string, error) {
	out, err := exec.Command(bin, args...).CombinedOutput()
	return string(out), err
}

// hasPeer reports whether a host has a node as a peer.
func (w *world) hasPeer(host, node string) bool {
	for _, p := range w.status(host).Peers {
		if p.Node == node {
			return true
		}
	}
	return false
}

// TestRevocation revokes a node: all others drop it within 2 s, and it stays dropped when the record is hidden and the
// agents start anew. What it had signed stays usable.
func TestRevocation(t *testing.T) {
	w, op := lockedWorld(t, lab.Options{})
	w.weft("n3", "network", "create", "left", "--encrypted")
	w.eventually(5*time.Second, "network known", func() error { _, err := w.try("n1", "weft", "network", "inspect", "left"); return err })
	w.run("n1", op.args("revoke", "n3")...)
	begin := time.Now()
	for _, n := range []string{"n1", "n2"} {
		w.eventually(3*time.Second, "n3 gone from "+n, func() error {
			if w.hasPeer(n, "n3") {
				return fmt.Errorf("still a peer")
			}
			if out := w.run(n, "sh", "-c", "ip netns exec weft-t ip route"); strings.Contains(out, w.vtepOf("n3")) {
				return fmt.Errorf("still routed: %s", out)
			}
			return nil
		})
	}
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("the revocation took %v", d)
	}
	w.eventually(10*time.Second, "n3 says so", func() error { return named(w.status("n3"), "revoked") })
	w.eventually(10*time.Second, "network is signed again", func() error {
		if v := string(w.kvGet("networks/left")); strings.Contains(v, `"signer": "n3"`) {
			return fmt.Errorf("%s", v)
		}
		return nil
	})
	// hidden
	for _, n := range []string{"n1", "n2"} {
		if err := w.StopAgent(context.Background(), n, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	w.kvDel("trust/revoked/")
	for _, n := range []string{"n1", "n2"} {
		w.startAgentOnly(n)
	}
	w.eventually(20*time.Second, "revocation is put back", func() error {
		if len(w.kvList("trust/revoked/")) == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if w.hasPeer("n1", "n3") || w.hasPeer("n2", "n3") {
		t.Error("the revoked node is back")
	}
}

func (w *world) vtepOf(host string) string { return w.vtep(host).String() }

// TestJoinToken lets a node in by a token, refuses a second one by the same, and shows why.
func TestJoinToken(t *testing.T) {
	needRoot(t)
	op := newOperator(t, weftBinary)
	tokenFile := op.dir + "/join.token"
	w := ownWorld(t, lab.Options{Nodes: 4, NoAgents: true, ConfigExtra: op.config()})
	for _, n := range []string{"n1", "n2"} {
		if err := w.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
		w.eventually(20*time.Second, n+" admitted", func() error { _, err := w.try(n, op.args("sign", n)...); return err })
	}
	w.run("n1", op.args("token", "create", "--uses", "1", "--ttl", "1h", "--out", tokenFile)...)
	for _, n := range []string{"n3", "n4"} {
		conf := w.Dir() + "/" + n + "/weft.yaml"
		text, err := os.ReadFile(conf)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(conf, append(text, "join_token_file: "+tokenFile+"\n"...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.startAgentOnly("n3")
	w.eventually(20*time.Second, "n3 let in", func() error {
		if !w.hasPeer("n1", "n3") || !w.hasPeer("n2", "n3") {
			return fmt.Errorf("%+v", w.status("n1").Problems)
		}
		return nil
	})
	w.startAgentOnly("n4")
	w.eventually(20*time.Second, "n4 says why", func() error { return named(w.status("n4"), "uses are taken") })
	if w.hasPeer("n1", "n4") {
		t.Error("a second node came in by a token for one")
	}
	w.eventually(5*time.Second, "n1 says who waits", func() error { return named(w.status("n1"), "weft trust sign n4") })
	var tr api.Trust
	w.weftJSON(&tr, "n2", "trust", "status")
	if len(tr.Tokens) != 1 || tr.Tokens[0].Used != 1 {
		t.Errorf("tokens: %+v", tr.Tokens)
	}
	w.eventually(10*time.Second, "testimony", func() error {
		if w.kvGet(overlay.TrustPath("seen", "n3")) == nil {
			return fmt.Errorf("none yet")
		}
		return nil
	})
}

// TestClusterSecret: in an open cluster with a secret a node without it is known and reaches nobody; with it, it does.
func TestClusterSecret(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/secret", []byte(strings.Repeat("a secret of the cluster ", 3)), 0o600); err != nil {
		t.Fatal(err)
	}
	w := ownWorld(t, lab.Options{Backend: twoDevices, NoAgents: true, ConfigExtra: "trust:\n  secret_file: " + dir + "/secret\n"})
	conf := w.Dir() + "/n3/weft.yaml"
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	without := strings.ReplaceAll(string(text), dir+"/secret", `""`)
	if without == string(text) || os.WriteFile(conf, []byte(without), 0o644) != nil {
		t.Fatalf("configuration of n3:\n%s", text)
	}
	for _, n := range w.Nodes() {
		w.startAgentOnly(n)
	}
	up := func(host, peer string) bool {
		for _, p := range w.status(host).Peers {
			if p.Node == peer {
				return p.Up
			}
		}
		return false
	}
	w.eventually(20*time.Second, "n1 and n2 up", func() error {
		if !up("n1", "n2") || !w.hasPeer("n1", "n3") {
			return fmt.Errorf("%+v", w.status("n1").Peers)
		}
		return nil
	})
	time.Sleep(6 * time.Second) // one retry of WireGuard and more
	if up("n1", "n3") || up("n2", "n3") || up("n3", "n1") {
		t.Error("a node without the secret has a session")
	}
	if err := os.WriteFile(conf, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := w.StopAgent(context.Background(), "n3", unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.startAgentOnly("n3")
	w.weft("n1", "key", "rotate", "--wait", "0s") // a generation takes the secret that is there when it begins
	w.eventually(30*time.Second, "n3 up with the secret", func() error {
		if !up("n1", "n3") || !up("n2", "n3") {
			return fmt.Errorf("%+v", w.status("n1").Peers)
		}
		return nil
	})
}

func (w *world) startAgentOnly(host string) {
	w.t.Helper()
	if err := w.StartAgent(context.Background(), host); err != nil {
		w.t.Fatal(err)
	}
	w.eventually(10*time.Second, host+" answers", func() error { _, err := w.try(host, "weft", "status"); return err })
}
