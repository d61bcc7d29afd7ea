package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const sigKill = unix.SIGKILL

func TestCNISize(t *testing.T) {
	needRoot(t)
	fi, err := os.Stat(filepath.Join(cniDir, "weft-cni"))
	if err != nil {
		t.Fatal(err)
	}
	if fi.Size() >= 10<<20 {
		t.Errorf("weft-cni has %d bytes, want less than 10 MiB", fi.Size())
	}
}

// TestCNIAdd: what ADD says is what the kernel has, in every version of the specification, and what goes wrong is said
// with a code and a way out.
func TestCNIAdd(t *testing.T) {
	w := cniWorld(t)
	n := w.network("cni-add", "--subnet", "10.171.0.0/24")
	internal := w.network("cni-int", "--internal", "--subnet", "10.172.0.0/24")
	ns := w.netns("n1", "cni-add")
	c := call{container: "c1", netns: ns, ifname: "eth0", config: config("conf", n.Name), args: "IgnoreUnknown=1;K8S_POD_NAME=web"}

	c.command = "VERSION"
	if v := w.mustCNI("n1", c); fmt.Sprint(v.raw["supportedVersions"]) != "[0.4.0 1.0.0 1.1.0]" {
		t.Errorf("VERSION: %v", v.raw)
	}
	c.command = "ADD"
	r := w.mustCNI("n1", c)
	show := w.run("n1", "ip", "-n", "cni-add", "addr", "show", "eth0")
	if len(r.Interfaces) != 1 || len(r.IPs) != 1 || !strings.Contains(show, "inet "+r.IPs[0].Address+" ") ||
		!strings.Contains(show, r.Interfaces[0].MAC) || !strings.Contains(show, fmt.Sprintf("mtu %d ", r.Interfaces[0].MTU)) ||
		r.Interfaces[0].Sandbox != ns || *r.IPs[0].Interface != 0 {
		t.Errorf("ADD: %+v\n%s", r, show)
	}
	if route := w.run("n1", "ip", "-n", "cni-add", "route"); len(r.Routes) != 1 || !strings.Contains(route, "default via "+r.Routes[0].GW+" dev eth0") ||
		r.IPs[0].Gateway != r.Routes[0].GW || r.Routes[0].Dst != "0.0.0.0/0" {
		t.Errorf("ADD: %+v\n%s", r, route)
	}
	if len(r.DNS.Nameservers) != 1 || r.DNS.Nameservers[0] != n.Gateway.String() {
		t.Errorf("ADD: %+v", r.DNS)
	}
	if out := w.weft("n1", "endpoint", "inspect", "web"); !strings.Contains(out, "c1:eth0") {
		t.Errorf("the endpoint has not the name that the runtime gave:\n%s", out)
	}

	// The same again is an error, and breaks nothing.
	_, err := w.cni("n1", c)
	wantCode(t, err, 100, "exists already")
	check := c
	check.command, check.config = "CHECK", with(c.config, "prevResult", r.raw)
	w.mustCNI("n1", check)

	// A second interface of the same container, on a network without egress.
	second := c
	second.ifname, second.config, second.args = "net1", config("conf2", internal.Name), ""
	r2 := w.mustCNI("n1", second)
	if len(r2.Routes) != 0 || r2.IPs[0].Gateway != "" {
		t.Errorf("a network without egress gives a route: %+v", r2)
	}
	if ids := slices.Concat(w.local("n1", n.Name), w.local("n1", internal.Name)); !slices.Equal(ids, []string{"c1:eth0", "c1:net1"}) {
		t.Errorf("endpoints %v", ids)
	}

	bad := w.netns("n1", "cni-bad")
	for name, tt := range map[string]struct {
		change func(*call)
		code   int
		text   string
	}{
		"unknown network":    {func(c *call) { c.config = config("conf", "nosuch") }, 7, "there are cni-add"},
		"unknown setting":    {func(c *call) { c.config["weft"] = map[string]any{"netwrok": "x"} }, 7, `unknown field "netwrok"`},
		"interface is there": {func(c *call) { c.container, c.netns = "c2", ns }, 100, "eth0"},
		"namespace is gone":  {func(c *call) { c.netns = "/run/netns/nosuch" }, 8, "nosuch"},
		"address is taken": {func(c *call) {
			c.config["runtimeConfig"] = map[string]any{"ips": []string{r.IPs[0].Address}}
		}, 100, strings.TrimSuffix(r.IPs[0].Address, "/24")},
		"address outside": {func(c *call) { c.config["runtimeConfig"] = map[string]any{"ips": []string{"10.99.0.1"}} }, 7, "10.99.0.1"},
		"two addresses":   {func(c *call) { c.config["runtimeConfig"] = map[string]any{"ips": []string{"10.171.0.8", "10.171.0.9"}} }, 2, "one address"},
		"name is taken":   {func(c *call) { c.args = "K8S_POD_NAME=web" }, 100, "web"},
		"agent away":      {func(c *call) { c.config["weft"] = map[string]any{"socket": "/run/weft/none.sock"} }, 11, "systemctl start weft"},
	} {
		c := call{command: "ADD", container: "c9", netns: bad, ifname: "eth0", config: config("conf", n.Name)}
		tt.change(&c)
		_, err := w.cni("n1", c)
		t.Logf("%s: %v", name, err)
		wantCode(t, err, tt.code, tt.text)
	}
	if left := w.run("n1", "ip", "-n", "cni-bad", "-o", "link"); strings.Contains(left, "eth0") {
		t.Errorf("what was refused left an interface: %s", left)
	}
	if ids := w.local("n1", n.Name); !slices.Equal(ids, []string{"c1:eth0"}) {
		t.Errorf("after what was refused: %v", ids)
	}

	// DEL: without the namespace, twice, and for what never was.
	for _, d := range []call{c, c, second, second, {container: "never", ifname: "eth0", config: c.config}} {
		d.command, d.netns = "DEL", ""
		w.mustCNI("n1", d)
	}
	w.settle("n1", n.Name)
	if left := w.run("n1", "ip", "-n", "cni-add", "-o", "link"); strings.Contains(left, "eth0") || strings.Contains(left, "net1") {
		t.Errorf("interfaces left: %s", left)
	}
	check.config = with(check.config, "prevResult", r.raw)
	_, err = w.cni("n1", check)
	wantCode(t, err, 3, "not attached")
}

// TestCNIAsked: addresses, MACs, aliases, services and networks that runtimes and jobs ask for.
func TestCNIAsked(t *testing.T) {
	w := cniWorld(t)
	n := w.network("cni-ask", "--subnet", "10.173.0.0/24")
	conf := with(config("conf", n.Name), "runtimeConfig", map[string]any{
		"ips": []string{"10.173.0.77/24"}, "mac": "02:11:22:33:44:55", "aliases": map[string]any{"conf": []string{"db", "web"}, "other": []string{"no"}}})
	c := call{command: "ADD", container: strings.Repeat("a1", 32), netns: w.netns("n1", "cni-ask"), ifname: "eth0", config: conf,
		args: "IgnoreUnknown=1;K8S_POD_NAME=web"}
	r := w.mustCNI("n1", c)
	if r.IPs[0].Address != "10.173.0.77/24" || r.Interfaces[0].MAC != "02:11:22:33:44:55" {
		t.Errorf("%+v", r)
	}
	if rec := w.run("n1", "consul", "kv", "get", "weft/endpoints/n1/cni-ask"); !strings.Contains(rec, `"db"`) || strings.Contains(rec, `"no"`) {
		t.Errorf("aliases in the record:\n%s", rec)
	}
	job := call{command: "ADD", container: "7d0a2a9e-0000-4000-8000-000000000000", netns: w.netns("n1", "cni-job"), ifname: "eth0",
		config: map[string]any{"cniVersion": "1.1.0", "name": "any", "type": "weft-cni"},
		args: "IgnoreUnknown=true;NOMAD_REGION=global;NOMAD_NAMESPACE=default;NOMAD_JOB_ID=shop/2;NOMAD_GROUP_NAME=web;" +
			"NOMAD_ALLOC_ID=7d0a2a9e-0000-4000-8000-000000000000;WEFT_NETWORK=cni-ask"}
	w.mustCNI("n1", job)
	out := w.weft("n1", "endpoint", "inspect", "shop-2-web-7d0a2a9e")
	if !strings.Contains(out, "shop-2-web\n") && !strings.Contains(out, "shop-2-web ") {
		t.Errorf("the job's endpoint:\n%s", out)
	}
	for _, c := range []call{c, job} {
		c.command = "DEL"
		w.mustCNI("n1", c)
	}
	w.settle("n1", n.Name)
}

// TestCNIChain: the plugin behind another one keeps that one's result and adds its own.
func TestCNIChain(t *testing.T) {
	w := cniWorld(t)
	n := w.network("cni-chain", "--subnet", "10.174.0.0/24")
	ns := w.netns("n1", "cni-chain")
	w.run("n1", "ip", "-n", "cni-chain", "link", "add", "eth9", "type", "bridge")
	prev := map[string]any{"cniVersion": "1.1.0", "interfaces": []any{map[string]any{"name": "eth9", "sandbox": ns}},
		"ips": []any{map[string]any{"address": "192.0.2.7/24", "interface": 0}}, "dns": map[string]any{"nameservers": []string{"192.0.2.53"}}}
	c := call{command: "ADD", container: "c1", netns: ns, ifname: "eth0", config: config("conf", n.Name, "prevResult", prev)}
	r := w.mustCNI("n1", c)
	if len(r.Interfaces) != 2 || r.Interfaces[0].Name != "eth9" || len(r.IPs) != 2 || *r.IPs[1].Interface != 1 || r.IPs[0].Address != "192.0.2.7/24" ||
		!slices.Equal(r.DNS.Nameservers, []string{n.Gateway.String(), "192.0.2.53"}) {
		t.Errorf("%+v", r)
	}
	// An interface that somebody else made is never taken over.
	taken := c
	taken.container, taken.ifname, taken.config = "c2", "eth9", config("conf", n.Name)
	_, err := w.cni("n1", taken)
	wantCode(t, err, 100, "has an interface eth9 already")
	taken.config = config("conf", n.Name, "prevResult", prev)
	_, err = w.cni("n1", taken)
	wantCode(t, err, 100, "earlier in the chain")
	if left := w.run("n1", "ip", "-n", "cni-chain", "-d", "link", "show", "eth9"); !strings.Contains(left, "bridge") {
		t.Errorf("the other plugin's interface is gone: %s", left)
	}
	for _, v := range []string{"0.4.0", "1.0.0"} {
		c.command = "DEL"
		w.mustCNI("n1", c)
		c.command, c.config = "ADD", with(config("conf", n.Name), "cniVersion", v)
		if r := w.mustCNI("n1", c); r.CNIVersion != v || len(r.IPs) != 1 {
			t.Errorf("version %s: %+v", v, r)
		}
	}
	c.command = "DEL"
	w.mustCNI("n1", c)
	w.settle("n1", n.Name)
}

// TestCNICheck damages what ADD made. Weft mends it within seconds, so each damage is looked at at once, and again if
// weft was quicker.
func TestCNICheck(t *testing.T) {
	w := cniWorld(t)
	n := w.network("cni-check", "--subnet", "10.175.0.0/24")
	c := call{command: "ADD", container: "c1", netns: w.netns("n1", "cni-check"), ifname: "eth0", config: config("conf", n.Name)}
	r := w.mustCNI("n1", c)
	check := c
	check.command, check.config = "CHECK", with(c.config, "prevResult", r.raw)
	w.mustCNI("n1", check)
	for what, argv := range map[string][]string{
		"addr 10.175":     {"ip", "-n", "cni-check", "addr", "flush", "dev", "eth0"},
		"route 0.0.0.0/0": {"ip", "-n", "cni-check", "route", "del", "default"},
		"link ":           {"ip", "-n", "cni-check", "link", "del", "eth0"},
		"up eth0":         {"ip", "-n", "cni-check", "link", "set", "eth0", "down"},
	} {
		w.eventually(20*time.Second, "CHECK sees that "+what+" is gone", func() error {
			w.run("n1", argv...)
			_, err := w.cni("n1", check)
			var e *cniError
			if !errors.As(err, &e) || e.Code != 102 || !strings.Contains(e.Msg, what) {
				return fmt.Errorf("CHECK says %v", err)
			}
			return nil
		})
		w.eventually(10*time.Second, "weft mends "+what, func() error {
			_, err := w.cni("n1", check)
			return err
		})
	}
	// What ADD returned and what is there now must be the same.
	other, err := json.Marshal(r.raw)
	if err != nil {
		t.Fatal(err)
	}
	var moved map[string]any
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(other), r.IPs[0].Address, "10.175.0.200/24")), &moved); err != nil {
		t.Fatal(err)
	}
	check.config = with(c.config, "prevResult", moved)
	_, err = w.cni("n1", check)
	wantCode(t, err, 102, "not the one that ADD returned")
	check.config = c.config
	_, err = w.cni("n1", check)
	wantCode(t, err, 7, "prevResult")
	c.command = "DEL"
	w.mustCNI("n1", c)
	w.settle("n1", n.Name)
}

// TestCNIGarbage: GC removes what is not in the list, of its own configuration only. STATUS says whether ADD can work.
func TestCNIGarbage(t *testing.T) {
	w := cniWorld(t)
	n := w.network("cni-gc", "--subnet", "10.176.0.0/24")
	mine, other := config("mine", n.Name), config("other", n.Name)
	for i, c := range []call{{container: "c1", ifname: "eth0", config: mine}, {container: "c1", ifname: "net1", config: mine},
		{container: "c2", ifname: "eth0", config: mine}, {container: "c3", ifname: "eth0", config: other}} {
		c.command, c.netns = "ADD", w.netns("n1", fmt.Sprintf("cni-gc-%d", i))
		w.mustCNI("n1", c)
	}
	w.endpoint("n1", n.Name, "process")
	before := w.local("n1", n.Name)
	w.mustCNI("n1", call{command: "GC", config: with(mine, "cni.dev/valid-attachments", []any{
		map[string]any{"containerID": "c1", "ifname": "net1"}, map[string]any{"containerID": "c3", "ifname": "eth0"}})})
	gone := []string{"c1:eth0", "c2:eth0"}
	want := slices.DeleteFunc(before, func(id string) bool { return slices.Contains(gone, id) })
	if got := w.local("n1", n.Name); !slices.Equal(got, want) {
		t.Errorf("after GC: %v, want %v", got, want)
	}
	w.mustCNI("n1", call{command: "STATUS", config: mine})
	_, err := w.cni("n1", call{command: "STATUS", config: config("mine", "nosuch")})
	wantCode(t, err, 50, "weft network create")
	_, err = w.cni("n1", call{command: "STATUS", config: with(mine, "weft", map[string]any{"socket": "/run/weft/none.sock"})})
	wantCode(t, err, 50, "does not answer")
	_, err = w.cni("n1", call{command: "STATUS", config: with(mine, "cniVersion", "1.0.0")})
	wantCode(t, err, 1, "STATUS")
	for _, conf := range []map[string]any{mine, other} {
		w.mustCNI("n1", call{command: "GC", config: conf})
	}
	w.weft("n1", "detach", "process")
	w.settle("n1", n.Name)
}

// TestCNIAgentDown: a DEL that no agent answers is done when one is back, and never on what was made meanwhile.
func TestCNIAgentDown(t *testing.T) {
	w := cniWorld(t)
	n := w.network("cni-down", "--subnet", "10.177.0.0/24")
	c := call{container: "c1", netns: w.netns("n1", "cni-down"), ifname: "eth0", config: config("conf", n.Name)}
	c.command = "ADD"
	first := w.mustCNI("n1", c)
	w.killAgent("n1")
	c.command = "DEL"
	for range 2 {
		w.mustCNI("n1", c)
	}
	if q := w.run("n1", "ls", "/run/weft/cni-queue"); len(strings.Fields(q)) != 1 {
		t.Errorf("queue: %q", q)
	}
	c.command = "ADD"
	_, err := w.cni("n1", c)
	wantCode(t, err, 11, "start it")
	w.startAgent("n1")
	second := w.mustCNI("n1", c) // the runtime does not wait for the agent to have looked
	time.Sleep(3 * time.Second)
	if ids := w.local("n1", n.Name); !slices.Equal(ids, []string{"c1:eth0"}) {
		t.Errorf("the new endpoint did not survive the old DEL: %v", ids)
	}
	if first.Interfaces[0].MAC == second.Interfaces[0].MAC {
		t.Error("the old endpoint was not taken down")
	}
	w.killAgent("n1")
	c.command = "DEL"
	w.mustCNI("n1", c)
	w.startAgent("n1")
	w.settle("n1", n.Name)
}

// TestNetnsUnit runs the commands of the unit template as systemd would, and a program in the namespace that they make.
func TestNetnsUnit(t *testing.T) {
	w := cniWorld(t)
	n := w.network("unit", "--subnet", "10.184.0.0/24")
	peer := w.endpoint("n2", n.Name, "peer")
	text, err := os.ReadFile("../../deploy/systemd/weft-netns@.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			unit[key] = value
		}
	}
	command := func(key string) string {
		c := strings.NewReplacer("/usr/local/bin/", "", "%i", "web", "${WEFT_NETWORK}", n.Name, "$WEFT_FLAGS", "--service site").Replace(unit[key])
		return w.run("n1", strings.Fields(c)...)
	}
	command("ExecStart")
	command("ExecStart") // a restart of the unit that was not stopped
	if resolv := w.run("n1", "cat", "/run/weft/netns/web/resolv.conf"); !strings.Contains(resolv, "nameserver "+n.Gateway.String()) {
		t.Errorf("resolv.conf: %s", resolv)
	}
	w.killAgent("n1")
	w.startAgent("n1")
	ping := func() error {
		_, err := w.try("n1", "nsenter", "--net=/run/netns/web", "ping", "-c1", "-W1", peer.Address.Addr().String())
		return err
	}
	w.eventually(5*time.Second, "the unit reaches its peer", ping)
	w.eventually(5*time.Second, "the unit's service is known", func() error {
		var e struct{ Service string }
		w.weftJSON(&e, "n2", "endpoint", "inspect", "web")
		if e.Service != "site" {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})
	command("ExecStop")
	command("ExecStop")
	w.settle("n1", n.Name)
	if left := w.run("n1", "sh", "-c", "ls /run/weft/netns /run/netns | grep web; true"); left != "" {
		t.Errorf("left: %s", left)
	}
	w.weft("n2", "detach", "peer")
}
