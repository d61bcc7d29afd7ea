package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/pkg/api"
	"weft/pkg/lab"
)

// cniDir holds the plugin under test, as it is released: small, static, without the race detector.
var cniDir string

// sharedCNI is the lab of the CNI tests where others' runtimes take part: what those leave on a host shall not disturb
// other tests. Without them, the lab is the common one.
var (
	sharedCNI  sharedLab
	withOthers bool // set by the build tag cni
)

func buildCNI(root, dir string) error {
	cniDir = filepath.Join(dir, "cni")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", cniDir+"/", "./cmd/weft-cni")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build weft-cni: %w\n%s", err, out)
	}
	return nil
}

func cniWorld(t *testing.T) *world {
	t.Helper()
	needRoot(t)
	if !withOthers {
		return sharedWorld(t)
	}
	if sharedCNI.l == nil {
		sharedCNI.l = upLab(t, lab.Options{Name: fmt.Sprintf("cni-%d", os.Getpid())})
	}
	w := &world{sharedCNI.l, t}
	t.Cleanup(func() { w.logs(t) })
	return w
}

// call is one execution of the plugin, as a runtime makes it.
type call struct {
	command       string
	container     string
	netns, ifname string
	args          string
	config        map[string]any
}

// cniError is what a plugin prints when it fails.
type cniError struct {
	Code         int
	Msg, Details string
}

func (e *cniError) Error() string {
	return fmt.Sprintf("CNI error %d: %s (%s)", e.Code, e.Msg, e.Details)
}

// cniResult is what ADD returns, in version 1.1.0.
type cniResult struct {
	CNIVersion string
	Interfaces []struct {
		Name, MAC, Sandbox string
		MTU                int
	}
	IPs []struct {
		Address, Gateway string
		Interface        *int
	}
	Routes []struct{ Dst, GW string }
	DNS    struct{ Nameservers []string }

	raw map[string]any
}

func (w *world) plugin(host string, c call) *exec.Cmd {
	config, err := json.Marshal(c.config)
	if err != nil {
		w.t.Fatal(err)
	}
	env := []string{"/usr/bin/env", "CNI_COMMAND=" + c.command, "CNI_CONTAINERID=" + c.container, "CNI_IFNAME=" + c.ifname,
		"CNI_ARGS=" + c.args, "CNI_PATH=" + cniDir}
	if c.netns != "" {
		env = append(env, "CNI_NETNS="+c.netns)
	}
	cmd := w.Command(host, append(env, filepath.Join(cniDir, "weft-cni"))...)
	cmd.Stdin = strings.NewReader(string(config))
	return cmd
}

// cni executes the plugin; the error, if any, is a *cniError.
func (w *world) cni(host string, c call) (r cniResult, err error) {
	cmd := w.plugin(host, c)
	var stderr buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		var e cniError
		if jerr := json.Unmarshal(out, &e); jerr != nil {
			return r, fmt.Errorf("%s of %s: %w: %s%s", c.command, c.container, err, out, stderr.String())
		}
		return r, &e
	}
	if c.command == "ADD" || c.command == "VERSION" {
		if err := json.Unmarshal(out, &r); err != nil {
			return r, fmt.Errorf("%s: %w: %s", c.command, err, out)
		}
		return r, json.Unmarshal(out, &r.raw)
	}
	if len(out) > 0 {
		return r, fmt.Errorf("%s printed %q", c.command, out)
	}
	return r, nil
}

func (w *world) mustCNI(host string, c call) cniResult {
	w.t.Helper()
	r, err := w.cni(host, c)
	if err != nil {
		w.t.Fatalf("%s of %s: %v", c.command, c.container, err)
	}
	return r
}

// wantCode checks that err is a CNI error of this code with this text in it.
func wantCode(t *testing.T, err error, code int, text string) {
	t.Helper()
	var e *cniError
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Msg+" "+e.Details, text) {
		t.Errorf("got %v, want CNI error %d with %q", err, code, text)
	}
}

// config is a configuration for the plugin, of the newest version, on a network.
func config(name, network string, more ...any) map[string]any {
	c := map[string]any{"cniVersion": "1.1.0", "name": name, "type": "weft-cni", "weft": map[string]any{"network": network}}
	for i := 0; i+1 < len(more); i += 2 {
		c[more[i].(string)] = more[i+1]
	}
	return c
}

func with(c map[string]any, key string, value any) map[string]any {
	out := map[string]any{}
	for k, v := range c {
		out[k] = v
	}
	out[key] = value
	return out
}

// netns makes a namespace on a host, as a runtime does, until the test ends.
func (w *world) netns(host, name string) string {
	w.t.Helper()
	w.run(host, "ip", "netns", "add", name)
	w.t.Cleanup(func() {
		if _, err := w.try(host, "ip", "netns", "del", name); err != nil && !w.t.Failed() {
			w.t.Error(err)
		}
	})
	return "/run/netns/" + name
}

// local lists the ids of a host's endpoints on a network.
func (w *world) local(host, network string) []string {
	w.t.Helper()
	var all []api.Endpoint
	w.weftJSON(&all, host, "endpoint", "ls", "--local", "--network", network)
	ids := []string{}
	for _, e := range all {
		ids = append(ids, string(e.ID))
	}
	slices.Sort(ids)
	return ids
}

// remains is everything on a host that attachments leave behind when something goes wrong, but for network namespaces of
// weft's own.
func (w *world) remains(host string) string {
	w.t.Helper()
	return w.run(host, "sh", "-c", `cd /run/netns && ls -d weft-e-* 2>/dev/null; for n in weft-n-*; do ip -n $n -o link | grep -o ' e[0-9a-f]*@'; `+
		`ip -n $n neigh show dev br0 nud permanent | grep -v fe80; done; ls /run/weft/cni-queue 2>/dev/null; true`)
}

// settle waits until a network has no endpoint and a host no trace of one.
func (w *world) settle(host, network string) {
	w.t.Helper()
	w.eventually(15*time.Second, "nothing left on "+host, func() error {
		var n api.Network // with what stands in its records: an agent that was just started has to join first
		w.weftJSON(&n, host, "network", "inspect", network)
		for _, e := range n.Endpoints {
			if e.Node == host {
				return fmt.Errorf("endpoint %s", e.ID)
			}
		}
		if left := strings.TrimSpace(w.remains(host)); left != "" {
			return errors.New(left)
		}
		return nil
	})
}

func (w *world) killAgent(host string) {
	w.t.Helper()
	if err := w.StopAgent(context.Background(), host, sigKill); err != nil {
		w.t.Fatal(err)
	}
}
