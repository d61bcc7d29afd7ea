package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needLab skips a test where labs cannot be made, and gives the Consul binary.
func needLab(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a lab is made of namespaces")
	}
	consul, err := filepath.Abs("../../bin/consul")
	if err == nil {
		_, err = os.Stat(consul)
	}
	if err != nil {
		if consul, err = exec.LookPath("consul"); err != nil {
			t.Skip("needs bin/consul: run make consul")
		}
	}
	return consul
}

// labDir is a directory for a lab, on a path as short as labs have them, below Root as a user's.
func labDir(t *testing.T, suffix string) string {
	return filepath.Join(Root, "t"+strconv.Itoa(os.Getpid())+suffix)
}

func testUp(t *testing.T, o Options) *Lab {
	t.Helper()
	begin := time.Now()
	o.Progress = func(line string) { t.Log(line) }
	l, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %v", time.Since(begin))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := l.Down(ctx); err != nil {
			t.Error(err)
		}
	})
	return l
}

// members are the processes with a thread in any namespace of a lab. They are told from later ones by their start
// time: the numbers of namespaces that are gone are used again at once.
func members(t *testing.T, l *Lab) []process {
	t.Helper()
	var spaces []string
	for _, h := range l.Hosts() {
		for _, kind := range []string{"mnt", "net", "pid", "uts"} {
			id, err := os.Readlink(procPath(h.PID, "ns", kind))
			if err != nil {
				t.Fatal(err)
			}
			spaces = append(spaces, id)
		}
	}
	pids, err := allPIDs()
	if err != nil {
		t.Fatal(err)
	}
	var found []process
	for _, pid := range pids {
		tasks, _ := filepath.Glob(procPath(pid, "task", "*", "ns", "*"))
		inside := slices.ContainsFunc(tasks, func(task string) bool {
			id, err := os.Readlink(task)
			return err == nil && slices.Contains(spaces, id)
		})
		// Our own threads that visit a namespace end by themselves.
		if p, err := findProcess(pid); err == nil && inside && pid != os.Getpid() {
			found = append(found, p)
		}
	}
	if len(found) < len(l.Hosts()) {
		t.Fatalf("found %d processes in a lab of %d hosts", len(found), len(l.Hosts()))
	}
	return found
}

// assertGone checks that nothing is left of a lab: without processes and mounts, its namespaces are gone too.
func assertGone(t *testing.T, dir string, before []process) {
	t.Helper()
	if exists(dir) {
		t.Errorf("%s is still there", dir)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(dir)) {
		t.Errorf("mounts of %s are still there (or: %v)", dir, err)
	}
	for _, p := range before {
		if !p.over() {
			t.Errorf("process %d is still there", p.PID)
		}
	}
	pids, err := allPIDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		cmdline, _ := os.ReadFile(procPath(pid, "cmdline"))
		if bytes.Contains(cmdline, []byte(dir)) && pid != os.Getpid() {
			t.Errorf("process %d is still there: %q", pid, cmdline)
		}
	}
}

func TestLab(t *testing.T) {
	consul := needLab(t)
	dir := labDir(t, "a")
	l := testUp(t, Options{Dir: dir, Nodes: 2, NoAgents: true, Consul: consul})
	t.Run("network", func(t *testing.T) { testNetwork(t, l) })
	t.Run("host", func(t *testing.T) { testHost(t, l) })
	t.Run("consul", func(t *testing.T) { testConsul(t, l) })
	t.Run("exit codes", func(t *testing.T) { testExitCodes(t, l) })
	t.Run("signals", func(t *testing.T) { testSignals(t, l) })
	t.Run("kill", func(t *testing.T) { testKill(t, l) })
	t.Run("partition", func(t *testing.T) { testPartition(t, l) })
	t.Run("capture", func(t *testing.T) { testCapture(t, l) })
	t.Run("dial", func(t *testing.T) { testDial(t, l) })
	t.Run("agent", func(t *testing.T) { testAgent(t, l) })
	t.Run("second up", func(t *testing.T) {
		_, err := Up(t.Context(), Options{Dir: dir, Nodes: 1, NoAgents: true, Consul: consul})
		if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "weft lab down --name") {
			t.Errorf("up of a lab that exists: %v, want exist, saying how to take it down", err)
		}
	})
}

func testNetwork(t *testing.T, l *Lab) {
	for _, pair := range [][2]string{{"n1", "n2"}, {"n2", "out"}, {"out", "n1"}, {"n1", "consul"}} {
		if out, err := l.Output(t.Context(), pair[0], "ping", "-c1", "-W2", pair[1]); err != nil {
			t.Errorf("%v: %v\n%s", pair, err, out)
		}
	}
	for _, address := range []string{"192.0.2.1", "198.18.0.254"} {
		if out, err := l.Output(t.Context(), "n1", "ping", "-c1", "-W1", address); err == nil {
			t.Errorf("%s answers from inside the lab:\n%s", address, out)
		}
	}
	routes, err := l.Output(t.Context(), "n1", "ip", "-4", "route")
	if want := "default via 198.18.0.254 dev eth0"; err != nil || !strings.Contains(routes, want) {
		t.Errorf("routes: %v\n%s, want %q", err, routes, want)
	}
}

func testHost(t *testing.T, l *Lab) {
	script := `hostname; cat /proc/1/cmdline | tr '\0' ' '; echo; ls /run; ls /sys/class/net; pwd; echo "socket:$WEFT_SOCKET"
ls -d "$0"; readlink /proc/1/ns/mnt /proc/self/ns/mnt | uniq | wc -l
ip netns add probe && ip netns ls && ip netns exec probe true && ip netns del probe && echo netns works
head -n 1 /etc/resolv.conf; grep -c n1 /etc/hosts`
	t.Setenv("WEFT_SOCKET", "/elsewhere")
	out, err := l.Output(t.Context(), "n1", "sh", "-c", script, filepath.Join(l.Dir(), "n1", "weft.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"n1\n", " lab host --lab " + l.Dir(), "\neth0\nlo\n", "\n/\nsocket:\n", "netns works",
		l.Dir() + "/n1/weft.yaml\n1\n", "nameserver 198.18.0.250\n1\n", "\nlock\nnetns\nweft-lab\nwireguard\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if out, err := l.Output(t.Context(), "n1", "ls", l.Dir()); err != nil || out != "n1\n" {
		t.Errorf("n1 sees %q of the lab's directory, %v, want its own alone", out, err)
	}
}

func testConsul(t *testing.T, l *Lab) {
	var members []struct {
		Name   string
		Status int
	}
	err := poll(t.Context(), 50*time.Millisecond, func() (bool, error) {
		err := l.ConsulGet(t.Context(), Consul, "/v1/agent/members", &members)
		return len(members) == 3, err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if m.Status != 1 { // serf's "alive"
			t.Errorf("member %s has status %d", m.Name, m.Status)
		}
	}
	out, err := l.Output(t.Context(), "n1", "consul", "kv", "put", "a", "b")
	if err != nil {
		t.Fatal(err, out)
	}
	if err := l.StopConsul(t.Context(), "n2", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := l.StartConsul(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitConsul(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	if out, err := l.Output(t.Context(), "n2", "consul", "kv", "get", "a"); err != nil || out != "b\n" {
		t.Errorf("kv get: %q, %v", out, err)
	}
}

func testExitCodes(t *testing.T, l *Lab) {
	tests := map[string]struct {
		argv []string
		want int
	}{
		"done":              {[]string{"true"}, 0},
		"failed":            {[]string{"sh", "-c", "exit 7"}, 7},
		"killed":            {[]string{"sh", "-c", "kill -9 $$"}, 128 + 9},
		"terminated":        {[]string{"sh", "-c", "kill -15 $$"}, 128 + 15},
		"not found":         {[]string{"no-such-program"}, 127},
		"not executable":    {[]string{"/etc/passwd"}, 126},
		"option of its own": {[]string{"sh", "-c", `test "$1" = -- -a "$2" = --lab`, "sh", "--", "--lab"}, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := l.Command("n1", tt.argv...)
			if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != tt.want {
				t.Errorf("%v: %v, want %d", tt.argv, err, tt.want)
			}
		})
	}
	if _, err := l.Output(t.Context(), "n9", "true"); err == nil || !strings.Contains(err.Error(), `no host "n9"`) {
		t.Errorf("unknown host: %v", err)
	}
	cmd := l.Command("n1", "tr", "a-z", "A-Z")
	cmd.Stdin = strings.NewReader("hello")
	if out, err := cmd.Output(); err != nil || string(out) != "HELLO" {
		t.Errorf("standard input: %q, %v", out, err)
	}
}

// startIn starts a shell in n1 that says READY, and waits for that.
func startIn(t *testing.T, l *Lab, script string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := l.Command("n1", "sh", "-c", script)
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(stdout)
	if line, err := r.ReadString('\n'); err != nil || line != "READY\n" {
		t.Fatalf("the shell said %q, %v", line, err)
	}
	return cmd, r
}

func testSignals(t *testing.T, l *Lab) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1} {
		t.Run(sig.String(), func(t *testing.T) {
			cmd, r := startIn(t, l, fmt.Sprintf(`trap 'echo got; exit 3' %d; echo READY; while :; do sleep 0.01; done`, sig))
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(r)
			if err := cmd.Wait(); string(rest) != "got\n" || cmd.ProcessState.ExitCode() != 3 {
				t.Errorf("after %v: %q, %v", sig, rest, err)
			}
		})
	}
}

func testKill(t *testing.T, l *Lab) {
	cmd, _ := startIn(t, l, "echo READY; exec sleep 1000")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	err := poll(t.Context(), 5*time.Millisecond, func() (bool, error) {
		out, err := l.Output(t.Context(), "n1", "sh", "-c", `for p in /proc/[0-9]*; do tr '\0' ' ' < $p/cmdline; echo; done 2>/dev/null`)
		return !strings.Contains(out, "sleep 1000"), err
	})
	if err != nil {
		t.Errorf("killing the outer half left the inner one: %v", err)
	}
}

func testAgent(t *testing.T, l *Lab) {
	ctx := t.Context()
	if _, err := l.AgentPID("n1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("agent before it started: %v, want not exist", err)
	}
	if err := l.StartAgent(ctx, "n1"); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitReady(ctx, "n1"); err != nil {
		t.Fatal(err)
	}
	if err := l.StartAgent(ctx, "n1"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second start: %v, want exist", err)
	}
	before, err := l.AgentPID("n1")
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := l.Pids("n1"); err != nil || !slices.Contains(pids, before) {
		t.Errorf("processes of n1: %v, %v, want %d among them", pids, err, before)
	}
	for _, h := range l.Status(ctx).Hosts {
		if h.Name == "n1" && (h.Weft == nil || h.Weft.Node != "n1" || !h.Agent.OK || !h.Consul.OK) {
			t.Errorf("status of n1: %+v", h)
		}
	}
	if err := l.StopAgent(ctx, "n1", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(procPath(before)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the killed agent is still there: %v", err)
	}
	if err := l.StopAgent(ctx, "n1", unix.SIGKILL); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("second stop: %v, want not exist", err)
	}
	if err := l.StartAgent(ctx, "n1"); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitReady(ctx, "n1"); err != nil {
		t.Fatal(err)
	}
	if after, err := l.AgentPID("n1"); err != nil || after == before {
		t.Errorf("agent after the restart: %d, %v, before: %d", after, err, before)
	}
	path, err := l.LogPath("n1", "agent")
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(path)
	if want := "agent [--config " + l.Dir() + "/n1/weft.yaml]\n"; err != nil || string(log) != want+want {
		t.Errorf("log: %q, %v, want %q twice", log, err, want)
	}
}
