//go:build cni

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// These tests drive weft through others' programs: cnitool, podman and containerd. `make test-cni` installs them and
// sets the build tag.

func init() { withOthers = true }

// runtimes is what they need on a machine: a directory outside /run, an image and podman's configuration.
type runtimes struct {
	*world
	dir string
}

func newRuntimes(t *testing.T) *runtimes {
	t.Helper()
	needRoot(t)
	for _, program := range []string{"podman", "containerd", "ctr", "runc", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: run `make test-cni`, which installs it", err)
		}
	}
	r := &runtimes{cniWorld(t), t.TempDir()}
	for _, d := range []string{"net.d", "bin"} {
		if err := os.MkdirAll(filepath.Join(r.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// image makes a root file system of busybox alone, as a tar file.
func (r *runtimes) image() string {
	r.t.Helper()
	script := `set -e; cd "$1"; mkdir -p root/bin root/etc root/proc root/sys root/dev root/tmp root/run; cp "$(command -v busybox)" root/bin/busybox
for a in $(busybox --list); do [ "$a" = busybox ] || ln -sf busybox "root/bin/$a"; done
echo 'root:x:0:0:root:/:/bin/sh' >root/etc/passwd; echo 'root:x:0:' >root/etc/group; touch root/etc/resolv.conf
tar -C root -cf image.tar .`
	if out, err := exec.Command("sh", "-c", script, "image", r.dir).CombinedOutput(); err != nil {
		r.t.Fatalf("make image: %v\n%s", err, out)
	}
	return filepath.Join(r.dir, "image.tar")
}

// podman is a command line of podman with a store of its own. No CAP_SYS_RESOURCE is needed, hence default_ulimits.
func (r *runtimes) podman(args ...string) []string {
	conf := filepath.Join(r.dir, "containers.conf")
	text := fmt.Sprintf(`[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = [%q, "/usr/lib/cni"]
network_config_dir = %q
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
`, cniDir, filepath.Join(r.dir, "net.d"))
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	p := filepath.Join(r.dir, "podman")
	return append([]string{"/usr/bin/env", "CONTAINERS_CONF=" + conf, "podman", "--root", p + "/store", "--runroot", "/run/podman", "--tmpdir", "/run/podman.tmp",
		"--storage-driver", "overlay"}, args...)
}

// mounts hides the places that containerd's client has fixed in it: each host has its own.
func (r *runtimes) mounts(host string) {
	r.t.Helper()
	r.run(host, "sh", "-c", `set -e; for d in /etc/cni /opt /var/lib/cni; do mkdir -p $d; mountpoint -q $d || mount -t tmpfs tmpfs $d; done; mkdir -p /etc/cni/net.d /opt/cni/bin; `+
		`cp `+filepath.Join(cniDir, "weft-cni")+` /opt/cni/bin/`)
}

// containerd runs on a host until the test ends.
func (r *runtimes) containerd(host string) {
	r.t.Helper()
	r.start(host, []string{"containerd", "--root", filepath.Join(r.dir, "containerd-"+host), "--state", "/run/cd", "-a", "/run/cd.sock", "--config", "/dev/null"})
	r.eventually(20*time.Second, "containerd answers", func() error {
		_, err := r.try(host, r.ctr("version")...)
		return err
	})
}

func (r *runtimes) ctr(args ...string) []string {
	return append([]string{"ctr", "-a", "/run/cd.sock"}, args...)
}

// cnitool is a command line of cnitool, which finds its configurations in dir/net.d.
func (r *runtimes) cnitool(args ...string) []string {
	tool, err := filepath.Abs("../../bin/cnitool")
	if err != nil {
		r.t.Fatal(err)
	}
	return append([]string{"/usr/bin/env", "CNI_PATH=" + cniDir, "NETCONFPATH=" + filepath.Join(r.dir, "net.d"), tool}, args...)
}

// TestRuntimeCNITool: an independent client finds that the plugin speaks the protocol, in each version.
func TestRuntimeCNITool(t *testing.T) {
	r := newRuntimes(t)
	n := r.network("tool", "--subnet", "10.181.0.0/24")
	r.mounts("n1")
	ns := r.netns("n1", "tool")
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		r.weft("n1", "cni", "install", n.Name, "--dir", filepath.Join(r.dir, "net.d"), "--cni-version", version)
		out := r.run("n1", r.cnitool("add", n.Name, ns)...)
		if !strings.Contains(out, `"cniVersion": "`+version+`"`) || !strings.Contains(out, "10.181.0.") {
			t.Errorf("add: %s", out)
		}
		r.run("n1", r.cnitool("check", n.Name, ns)...)
		if out, err := r.try("n1", r.cnitool("add", n.Name, ns)...); err == nil {
			t.Errorf("the second add succeeds: %s", out)
		}
		r.run("n1", "ip", "-n", "tool", "addr", "flush", "dev", "eth0")
		if out, err := r.try("n1", r.cnitool("check", n.Name, ns)...); err == nil && !strings.Contains(r.run("n1", "ip", "-n", "tool", "addr", "show", "eth0"), "10.181") {
			t.Errorf("check does not see that the address is gone: %s", out)
		}
		if version == "1.1.0" {
			r.run("n1", r.cnitool("status", n.Name, ns)...)
			r.run("n1", r.cnitool("gc", n.Name, ns)...) // of everything: cnitool gives no list
			if ids := r.local("n1", n.Name); len(ids) > 0 {
				t.Errorf("after gc: %v", ids)
			}
		}
		for range 2 {
			r.run("n1", r.cnitool("del", n.Name, ns)...)
		}
		r.settle("n1", n.Name)
	}
}

// TestRuntimeMixed: a container of podman, one of containerd and a plain process, each on a host of its own, on one
// encrypted network: each pings each, finds it by name and moves a stream of a megabyte.
func TestRuntimeMixed(t *testing.T) {
	r := newRuntimes(t)
	n := r.network("mix", "--encrypted", "--subnet", "10.182.0.0/24")
	image := r.image()
	const megabyte = 1 << 20
	serve := func(dir string) string { // busybox's nc ends with its input, its httpd does not
		return fmt.Sprintf("dd if=/dev/zero of=%s/stream bs=1024 count=1024 2>/dev/null; exec busybox httpd -f -p 7000 -h %s", dir, dir)
	}

	// n1: podman.
	r.weft("n1", "cni", "install", n.Name, "--dir", filepath.Join(r.dir, "net.d"))
	r.run("n1", r.podman("import", image, "bb:1")...)
	t.Cleanup(func() { r.clean("n1") })
	if ls := r.run("n1", r.podman("network", "ls")...); !strings.Contains(ls, "mix") || !strings.Contains(ls, "weft-cni") {
		t.Errorf("podman network ls:\n%s", ls)
	}
	r.run("n1", r.podman("run", "-d", "--name", "pod", "--network", n.Name+":alias=front", "localhost/bb:1", "sh", "-c", serve("/tmp"))...)

	// n2: containerd, whose client writes no resolv.conf.
	r.mounts("n2")
	r.weft("n2", "cni", "install", n.Name)
	r.containerd("n2")
	oci := filepath.Join(r.dir, "bb.oci")
	r.run("n1", r.podman("save", "--format", "oci-archive", "-o", oci, "localhost/bb:1")...)
	r.run("n2", r.ctr("image", "import", oci)...)
	name := strings.Fields(r.run("n2", r.ctr("image", "ls", "-q")...))[0]
	resolv := filepath.Join(r.dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver "+n.Gateway.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.run("n2", r.ctr("run", "-d", "--cni", "--mount", "type=bind,src="+resolv+",dst=/etc/resolv.conf,options=rbind:ro", name, "box", "sh", "-c", serve("/tmp"))...)
	t.Cleanup(func() {
		if _, err := r.try("n2", "sh", "-c", "ctr -a /run/cd.sock task kill -s 9 box; sleep 0.3; ctr -a /run/cd.sock container rm box; true"); err != nil {
			t.Log(err)
		}
	})

	// n3: a process.
	r.weft("n3", "run", n.Name, "--detach", "--name", "proc", "--", "busybox", "sh", "-c", serve(r.dir))

	inside := map[string]func(argv ...string) (string, error){
		"pod": func(argv ...string) (string, error) {
			return r.try("n1", r.podman(append([]string{"exec", "pod"}, argv...)...)...)
		},
		"default-box": func(argv ...string) (string, error) {
			return r.try("n2", r.ctr(append([]string{"task", "exec", "--exec-id", fmt.Sprint("x", time.Now().UnixNano()), "box"}, argv...)...)...)
		},
		"proc": func(argv ...string) (string, error) {
			return r.try("n3", append([]string{"weft", "exec", "proc", "--", "busybox"}, argv...)...)
		},
	}
	for from, exec := range inside {
		for to := range inside {
			if from == to {
				continue
			}
			var address string
			r.eventually(15*time.Second, from+" finds "+to, func() error {
				out, err := exec("ping", "-c", "1", "-W", "2", to)
				if err != nil || !strings.Contains(out, "1 packets received") {
					return fmt.Errorf("%w: %s", errors.Join(err), out)
				}
				_, rest, _ := strings.Cut(out, "(")
				address, _, _ = strings.Cut(rest, ")")
				return nil
			})
			r.eventually(10*time.Second, from+" reads from "+to, func() error {
				out, err := exec("sh", "-c", "busybox wget -q -O - http://"+address+":7000/stream | wc -c")
				if strings.TrimSpace(out) != fmt.Sprint(megabyte) {
					return fmt.Errorf("%v: got %s of %d bytes", err, strings.TrimSpace(out), megabyte)
				}
				return nil
			})
		}
	}

	// They survive a restart of the agents and go with their containers.
	for _, host := range []string{"n1", "n2", "n3"} {
		r.killAgent(host)
		r.startAgent(host)
	}
	if out, err := inside["pod"]("ping", "-c", "2", "-W", "2", "default-box"); err != nil {
		t.Errorf("after a restart of the agents: %v: %s", err, out)
	}
	r.run("n1", r.podman("rm", "-f", "-t", "0", "pod")...)
	r.run("n2", "sh", "-c", "ctr -a /run/cd.sock task kill -s 9 box; sleep 0.5; ctr -a /run/cd.sock task rm box; ctr -a /run/cd.sock container rm box")
	r.weft("n3", "detach", "proc")
	for _, host := range []string{"n1", "n2", "n3"} {
		r.settle(host, n.Name)
	}
}

// TestRuntimeForeground: what podman and ctr run in the foreground is attached and detached by them.
func TestRuntimeForeground(t *testing.T) {
	r := newRuntimes(t)
	n := r.network("fore", "--subnet", "10.183.0.0/24")
	image := r.image()
	r.weft("n1", "cni", "install", n.Name, "--dir", filepath.Join(r.dir, "net.d"))
	r.run("n1", r.podman("import", image, "bb:1")...)
	t.Cleanup(func() { r.clean("n1") })
	out := r.run("n1", r.podman("run", "--rm", "--network", n.Name, "--ip", "10.183.0.99", "--mac-address", "02:83:00:00:00:99", "localhost/bb:1",
		"sh", "-c", "ip addr show eth0; cat /etc/resolv.conf")...)
	if !strings.Contains(out, "10.183.0.99/24") || !strings.Contains(out, "02:83:00:00:00:99") || !strings.Contains(out, "nameserver "+n.Gateway.String()) {
		t.Errorf("podman run:\n%s", out)
	}
	r.settle("n1", n.Name)

	// ctr gives no CNI_NETNS when it detaches.
	r.mounts("n1")
	r.weft("n1", "cni", "install", n.Name)
	r.containerd("n1")
	oci := filepath.Join(r.dir, "bb.oci")
	r.run("n1", r.podman("save", "--format", "oci-archive", "-o", oci, "localhost/bb:1")...)
	r.run("n1", r.ctr("image", "import", oci)...)
	name := strings.Fields(r.run("n1", r.ctr("image", "ls", "-q")...))[0]
	out = r.run("n1", r.ctr("run", "--rm", "--cni", name, "c1", "ip", "addr", "show", "eth0")...)
	if !strings.Contains(out, "inet 10.183.0.") {
		t.Errorf("ctr run:\n%s", out)
	}
	r.settle("n1", n.Name)
}

// clean removes podman's containers and the control group it leaves.
func (r *runtimes) clean(host string) {
	for _, argv := range [][]string{r.podman("rm", "-f", "-t", "0", "-a"), r.podman("rmi", "-f", "-a"),
		{"sh", "-c", "find /sys/fs/cgroup -depth -type d \\( -path '*/libpod_parent' -o -path '*/libpod_parent/*' -o -path '*/default/box' -o -path '*/default/c1' -o -path '*/default' \\) -exec rmdir {} + 2>/dev/null; true"}} {
		if _, err := r.try(host, argv...); err != nil {
			r.t.Log(err)
		}
	}
}

// TestRuntimePorts: a port of the host, published by podman with the reference plugin portmap, leads to the container
// from the host itself and from others, and the container sees who asks.
func TestRuntimePorts(t *testing.T) {
	r := newRuntimes(t)
	n := r.network("ports", "--encrypted", "--subnet", "10.186.0.0/24")
	image := r.image()
	r.weft("n1", "cni", "install", n.Name, "--host-ports", "--dir", filepath.Join(r.dir, "net.d"))
	r.run("n1", r.podman("import", image, "bb:1")...)
	t.Cleanup(func() { r.clean("n1") })
	r.run("n1", r.podman("run", "-d", "--name", "shop", "--network", n.Name, "-p", "8080:7000", "localhost/bb:1", "sh", "-c",
		"echo hello >/tmp/index.html; exec httpd -f -v -p 7000 -h /tmp 2>/tmp/log")...)
	addr := func(host string) string {
		a, _, _ := strings.Cut(strings.Fields(r.run(host, "ip", "-o", "-4", "addr", "show", "eth0"))[3], "/")
		return a
	}
	n1, n2 := addr("n1"), addr("n2")
	get := func(address string) []string { // busybox's wget needs a C library's files on the host, bash is there
		return []string{"timeout", "3", "bash", "-c", `exec 3<>/dev/tcp/` + address + `/8080; printf 'GET /index.html HTTP/1.0\r\n\r\n' >&3; cat <&3`}
	}
	for _, from := range []string{"n2", "n1"} {
		r.eventually(10*time.Second, from+" reaches the published port", func() error {
			out, err := r.try(from, get(n1)...)
			if !strings.HasSuffix(out, "hello\n") {
				return fmt.Errorf("%v: %q", err, out)
			}
			return nil
		})
	}
	if out, err := r.try("n1", get("127.0.0.1")...); !strings.HasSuffix(out, "hello\n") {
		t.Errorf("from localhost: %v: %q", err, out)
	}
	if log := r.run("n1", r.podman("exec", "shop", "cat", "/tmp/log")...); !strings.Contains(log, n2) {
		t.Errorf("the container does not see that %s asks:\n%s", n2, log)
	}
	r.run("n1", r.podman("rm", "-f", "-t", "0", "shop")...)
	r.settle("n1", n.Name)
	if left := r.run("n1", "sh", "-c", "iptables-save -t nat | grep 8080; ip route | grep 10.186; true"); left != "" {
		t.Errorf("left: %s", left)
	}
}
