package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft/pkg/api"
	"weft/pkg/lab"
)

// Paths of the binaries under test; set by TestMain. They lie outside /run, which the lab's hosts do not see.
var weftBinary, consulBinary string

// labPrefix begins the names of the labs; set it where several people test on one machine.
var labPrefix = cmp.Or(os.Getenv("WEFT_E2E_LAB"), "e2e")

func TestMain(m *testing.M) {
	if os.Getenv(toolEnv) != "" {
		os.Exit(toolMain(os.Args[1:]))
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // every test says that it needs root
	}
	// A program with the race detector sleeps for a second when it ends; the tests start hundreds.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	dir, err := os.MkdirTemp("", "weft-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer shared.down()
	defer sharedCNI.down()
	return m.Run()
}

// Settings for where there is no Go toolchain, or a slow machine: paths of binaries made before, the backend of every lab
// that does not ask for one, and a factor by which limits are stretched.
const (
	weftEnv    = "WEFT_E2E_WEFT"
	consulEnv  = "WEFT_E2E_CONSUL"
	backendEnv = "WEFT_E2E_BACKEND"
	slowEnv    = "WEFT_E2E_SLOW"
)

// slow stretches a limit that is for a machine of its own speed.
func slow(d time.Duration) time.Duration {
	if n, err := strconv.Atoi(os.Getenv(slowEnv)); err == nil && n > 1 {
		return d * time.Duration(n)
	}
	return d
}

// build makes the weft binary under test, with the race detector where there is a C compiler.
func build(dir string) error {
	weftBinary, consulBinary = os.Getenv(weftEnv), os.Getenv(consulEnv)
	if weftBinary != "" && consulBinary != "" {
		return nil
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	consulBinary = filepath.Join(root, "bin", "consul")
	if _, err := os.Stat(consulBinary); err != nil {
		return fmt.Errorf("no Consul binary at bin/consul: run `make consul` first: %w", err)
	}
	weftBinary = filepath.Join(dir, "weft")
	args := []string{"build", "-o", weftBinary}
	env := append(os.Environ(), "CGO_ENABLED=0")
	if raceEnabled {
		args, env = append(args, "-race"), append(os.Environ(), "CGO_ENABLED=1")
	}
	cmd := exec.Command("go", append(args, "./cmd/weft")...)
	cmd.Dir, cmd.Env = root, env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build weft: %w\n%s", err, out)
	}
	return buildCNI(root, dir)
}

// world is a lab with what the tests do in it.
type world struct {
	*lab.Lab
	t *testing.T
}

// shared is the lab of three hosts that most tests use; it is made by the first of them.
var shared sharedLab

type sharedLab struct{ l *lab.Lab }

func (s *sharedLab) down() {
	if s.l == nil {
		return
	}
	if err := s.l.Down(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: lab not taken down:", err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
}

// sharedWorld is the shared lab; tests use network names of their own in it.
func sharedWorld(t *testing.T) *world {
	t.Helper()
	needRoot(t)
	if shared.l == nil {
		shared.l = upLab(t, lab.Options{Name: fmt.Sprintf("%s-%d", labPrefix, os.Getpid())})
	}
	w := &world{shared.l, t}
	t.Cleanup(func() { w.logs(t) })
	return w
}

// ownWorld is a lab for one test.
func ownWorld(t *testing.T, o lab.Options) *world {
	t.Helper()
	needRoot(t)
	o.Name = fmt.Sprintf("%s-%d-%s", labPrefix, os.Getpid(), strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(t.Name(), "Test")), "/", "-"))
	o.Name = o.Name[:min(32, len(o.Name))]
	l := upLab(t, o)
	w := &world{l, t}
	t.Cleanup(func() {
		w.logs(t)
		if err := l.Down(context.Background()); err != nil {
			t.Errorf("lab not taken down: %v", err)
		}
	})
	return w
}

func upLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), slow(90*time.Second))
	defer cancel()
	o.Weft, o.Consul = cmp.Or(o.Weft, weftBinary), consulBinary
	if o.Backend == "" {
		o.Backend = os.Getenv(backendEnv)
	}
	l, err := lab.Up(ctx, o)
	if err != nil {
		t.Fatalf("lab up: %v", err)
	}
	return l
}

// logs shows the end of each agent's log after a failure, and fails on a data race found in any of them.
func (w *world) logs(t *testing.T) {
	for _, n := range w.Nodes() {
		path, err := w.LogPath(n, "agent")
		if err != nil {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if i := strings.Index(string(data), "WARNING: DATA RACE"); i >= 0 {
			t.Errorf("data race in the agent of %s:\n%.4000s", n, data[i:])
		}
		for name, secret := range w.secrets(n) {
			if bytes.Contains(data, secret) {
				t.Errorf("the agent log of %s holds the secret of %s", n, name)
			}
		}
		if t.Failed() {
			t.Logf("agent log of %s, its end:\n%s", n, data[max(0, len(data)-3000):])
		}
	}
}

// secrets are what a node's key files hold now, in the forms in which a log might have it.
func (w *world) secrets(host string) map[string][]byte {
	out := map[string][]byte{}
	files, err := filepath.Glob(filepath.Join(w.Dir(), host, "data", "keys", "*.key"))
	if err != nil {
		return out
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for i, field := range bytes.Fields(text) {
			raw, err := base64.StdEncoding.DecodeString(string(field))
			if err != nil || len(raw) != 32 || strings.HasPrefix(filepath.Base(f), "pairs-") && i%4 != 2 {
				continue // a public key, or a ciphertext
			}
			name := fmt.Sprintf("%s, field %d", filepath.Base(f), i)
			out[name], out[name+", hexadecimal"] = field, []byte(hex.EncodeToString(raw))
		}
	}
	return out
}

// run runs argv on a host and returns its output; it fails the test on an error.
func (w *world) run(host string, argv ...string) string {
	w.t.Helper()
	out, err := w.try(host, argv...)
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	return out
}

func (w *world) try(host string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	return w.Output(ctx, host, argv...)
}

func (w *world) weft(host string, args ...string) string {
	w.t.Helper()
	return w.run(host, append([]string{"weft"}, args...)...)
}

// weftJSON runs a read command with -o json into v.
func (w *world) weftJSON(v any, host string, args ...string) {
	w.t.Helper()
	out := w.weft(host, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		w.t.Fatalf("weft %v prints no JSON: %v\n%s", args, err, out)
	}
}

func (w *world) status(host string) (s api.Status) {
	w.t.Helper()
	w.weftJSON(&s, host, "status")
	return s
}

// network makes a network, and removes it, with its endpoints, at the end of the test.
func (w *world) network(name string, flags ...string) api.Network {
	w.t.Helper()
	w.weft("n1", append([]string{"network", "create", name}, flags...)...)
	w.t.Cleanup(func() {
		var n api.Network
		w.weftJSON(&n, "n1", "network", "inspect", name)
		for _, e := range n.Endpoints {
			w.weft(e.Node, "detach", string(e.ID))
		}
		w.weft("n1", "network", "rm", name)
	})
	var n api.Network
	w.weftJSON(&n, "n1", "network", "inspect", name)
	for _, host := range w.Nodes() {
		w.eventually(5*time.Second, "network "+name+" known on "+host, func() error {
			_, err := w.try(host, "weft", "network", "inspect", name)
			return err
		})
	}
	return n
}

// endpoint starts a long-running endpoint.
func (w *world) endpoint(host, network, name string, flags ...string) api.Attachment {
	w.t.Helper()
	var a api.Attachment
	args := append([]string{"run", network, "--detach", "--name", name, "-o", "json"}, flags...)
	out := w.weft(host, append(args, "--", "sleep", "infinity")...)
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		w.t.Fatalf("weft run prints no JSON: %v\n%s", err, out)
	}
	return a
}

// eventually repeats f until it succeeds.
func (w *world) eventually(limit time.Duration, what string, f func() error) {
	w.t.Helper()
	limit = slow(limit)
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
