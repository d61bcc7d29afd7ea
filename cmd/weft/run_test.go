package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"weft/pkg/api"
	"weft/pkg/apiserver/apiservertest"
	"weft/pkg/netns"
	"weft/pkg/netns/netnstest"
)

// host is an agent whose endpoints have real namespaces, empty ones, and who remembers the order of the calls.
type host struct {
	*apiservertest.Backend
	socket string

	// Set before newHost's server starts.
	fail  map[string]error                       // by call
	block func(ctx context.Context, call string) // before a call is counted

	mu    sync.Mutex
	calls []string
}

func newHost(t *testing.T, options ...func(*host)) *host {
	t.Helper()
	netnstest.Need(t)
	h := &host{Backend: &apiservertest.Backend{}}
	h.NewNetNS = func(id string) (string, error) {
		name := "weft-e-" + id
		t.Cleanup(func() { netns.Delete(name) })
		return netns.Path(name), netns.Create(name)
	}
	h.DropNetNS = func(id string) { netns.Delete("weft-e-" + id) }
	h.Hook = func(ctx context.Context, call string) error {
		if h.block != nil {
			h.block(ctx, call)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.calls = append(h.calls, call)
		return h.fail[call]
	}
	for _, o := range options {
		o(h)
	}
	h.socket = apiservertest.Serve(t, h.Backend)
	if _, err := h.CreateNetwork(t.Context(), api.NetworkSpec{Name: "net"}); err != nil {
		t.Fatal(err)
	}
	h.take()
	return h
}

// take returns the calls since the last take.
func (h *host) take() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := strings.Join(h.calls, " ")
	h.calls = nil
	return s
}

// command is weft in a process of its own.
func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), mainEnv+"=1", "WEFT_SOCKET="+h.socket)
	return cmd
}

func (h *host) run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := h.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// gone checks that nothing of any endpoint is left.
func (h *host) gone(t *testing.T) {
	t.Helper()
	if es, err := h.Endpoints(t.Context()); err != nil || len(es) != 0 {
		t.Errorf("endpoints left: %+v, %v", es, err)
	}
	if files, _ := filepath.Glob(resolvDir + "/*"); len(files) != 0 {
		t.Errorf("files left: %v", files)
	}
	h.take()
}

func TestRunExitCodes(t *testing.T) {
	h := newHost(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("echo"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		argv   []string
		code   int
		stderr string
	}{
		{"done", []string{"true"}, 0, ""},
		{"its own code", []string{"sh", "-c", "exit 42"}, 42, ""},
		{"code 1 is not explained", []string{"false"}, 1, ""},
		{"signal", []string{"sh", "-c", "kill -KILL $$"}, 128 + 9, ""},
		{"not found", []string{"no-such-program"}, 127, "weft: run no-such-program: no such command in PATH: file does not exist\n"},
		{"path not found", []string{"/no/such/program"}, 127, "weft: run /no/such/program: no such file or directory\n"},
		{"not executable", []string{script}, 126, "weft: run " + script + ": not executable: permission denied\n"},
		{"flags of the program are its own", []string{"sh", "-c", "exit $#", "--help", "-o", "x"}, 2, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errs := h.run(t, append([]string{"run", "net", "--"}, tt.argv...)...)
			if code != tt.code || out != "" || errs != tt.stderr {
				t.Errorf("exit %d, %q, %q, want %d, %q", code, out, errs, tt.code, tt.stderr)
			}
			if got := h.take(); got != "Attach SetProcess Detach" {
				t.Errorf("calls: %s", got)
			}
			h.gone(t)
		})
	}
}

// The program is in the endpoint's namespace, sees its resolv.conf, our input and our output; nobody else's
// resolv.conf changes.
func TestRunEnvironment(t *testing.T) {
	h := newHost(t)
	before, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.command("run", "net", "--", "sh", "-c", "readlink /proc/self/ns/net; cat /etc/resolv.conf; cat; echo err >&2; ls /proc/self/fd | wc -l")
	cmd.Stdin = strings.NewReader("from stdin\n")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	lines := strings.Split(string(out), "\n")
	host, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if lines[0] == host || !strings.HasPrefix(lines[0], "net:[") {
		t.Errorf("namespace %s, the host's is %s", lines[0], host)
	}
	// No descriptor of ours leaks: as many are open as in a program that this test starts itself.
	fds, err := exec.Command("sh", "-c", "ls /proc/self/fd | wc -l").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := "nameserver 10.0.0.1\noptions ndots:1 timeout:2\nfrom stdin\n" + string(fds)
	if got := strings.Join(lines[1:], "\n"); got != want {
		t.Errorf("output:\n%swant:\n%s", got, want)
	}
	if errs.String() != "err\n" {
		t.Errorf("stderr: %q", errs.String())
	}
	if after, _ := os.ReadFile("/etc/resolv.conf"); !bytes.Equal(before, after) {
		t.Errorf("the host's resolv.conf changed to %q", after)
	}
}

func TestRunFailsBeforeTheProgram(t *testing.T) {
	for _, tt := range []struct {
		call, stderr, calls string
	}{
		{"Attach", "weft: no free address\n", "Attach"},
		{"SetProcess", "weft: tie endpoint to its process: no free address\n", "Attach SetProcess Detach"},
	} {
		t.Run(tt.call, func(t *testing.T) {
			h := newHost(t, func(h *host) {
				h.fail = map[string]error{tt.call: api.Errorf(api.Exhausted, "no free address")}
			})
			witness := filepath.Join(t.TempDir(), "ran")
			code, _, errs := h.run(t, "run", "net", "--", "touch", witness)
			if code != 1 || errs != tt.stderr {
				t.Errorf("exit %d, %q, want %q", code, errs, tt.stderr)
			}
			if got := h.take(); got != tt.calls {
				t.Errorf("calls %s, want %s", got, tt.calls)
			}
			if _, err := os.Stat(witness); err == nil {
				t.Error("the program ran")
			}
			h.gone(t)
		})
	}
	t.Run("namespace is not there", func(t *testing.T) {
		h := newHost(t, func(h *host) { h.NewNetNS = nil })
		code, _, errs := h.run(t, "run", "net", "--", "true")
		if code != 1 || !strings.Contains(errs, "no such file") || strings.Count(errs, "\n") != 1 {
			t.Errorf("exit %d, %q", code, errs)
		}
		h.gone(t)
	})
}

func TestRunForwardsSignals(t *testing.T) {
	for _, tt := range []struct {
		name   string
		signal syscall.Signal
		script string
		code   int
		stdout string
	}{
		{"handled", syscall.SIGTERM, "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done", 7, "caught"},
		{"usr1", syscall.SIGUSR1, "trap 'echo caught; exit 8' USR1; echo ready; while :; do sleep 0.05; done", 8, "caught"},
		{"fatal", syscall.SIGTERM, "echo ready; exec sleep 60", 128 + 15, ""},
		{"interrupt", syscall.SIGINT, "echo ready; exec sleep 60", 128 + 2, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			cmd := h.command("run", "net", "--", "sh", "-c", tt.script)
			// Without a terminal of ours: it would count as the sender of SIGINT.
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			out := startReady(t, cmd)
			if err := cmd.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			rest := out.rest()
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != tt.code || strings.TrimSpace(rest) != tt.stdout {
				t.Errorf("exit %d, %q, want %d, %q", code, rest, tt.code, tt.stdout)
			}
			h.gone(t)
		})
	}
}

func TestExec(t *testing.T) {
	h := newHost(t)
	att, err := h.Attach(t.Context(), api.AttachSpec{Network: "net", Name: "web-1", NewNetNS: true}, peerNone)
	if err != nil {
		t.Fatal(err)
	}
	h.take()
	want, err := netns.Inode(att.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	code, out, errs := h.run(t, "exec", "web-1", "--", "sh", "-c", "readlink /proc/self/ns/net; cat /etc/resolv.conf; exit 5")
	if code != 5 || errs != "" || !strings.HasPrefix(out, "net:["+strconv.FormatUint(want, 10)+"]\nnameserver 10.0.0.1\n") {
		t.Errorf("exit %d, %q, %q, want namespace %d", code, out, errs, want)
	}
	if got := h.take(); got != "Endpoint" {
		t.Errorf("calls: %s", got)
	}
	for _, tt := range []struct {
		argv []string
		code int
		want string
	}{
		{[]string{"web-1", "--", "no-such-program"}, 127, "no such command in PATH"},
		{[]string{"web-2", "--", "true"}, 1, `weft: no endpoint "web-2"`},
	} {
		code, _, errs := h.run(t, append([]string{"exec"}, tt.argv...)...)
		if code != tt.code || !strings.Contains(errs, tt.want) {
			t.Errorf("exec %v: exit %d, %q", tt.argv, code, errs)
		}
	}
	if err := h.Detach(t.Context(), "web-1"); err != nil {
		t.Fatal(err)
	}
	h.gone(t)
}

func TestInternalEnterIsNotForPeople(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `exec "$0" internal-enter --netns /proc/self/ns/net -- true 3>&- 4>&-`, exe)
	cmd.Env = append(os.Environ(), mainEnv+"=1")
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 1 || string(out) != "weft: internal-enter is a part of weft run and weft exec: use those\n" {
		t.Errorf("exit %d, %q", code, out)
	}
}

func TestNotRoot(t *testing.T) {
	h := newHost(t)
	for path, mode := range map[string]os.FileMode{filepath.Dir(h.socket): 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ line, want string }{
		{"status", "weft: connect to " + h.socket + ": permission denied: only root may use it, run weft as root\n"},
		{"run net -- true", "weft: run true: entering a network namespace needs root: run weft as root\n"},
	} {
		cmd := h.command(strings.Fields(tt.line)...)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		exe := publicCopy(t)
		cmd.Path = exe
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 1 || string(out) != tt.want {
			t.Errorf("%s: exit %d, %q, want %q", tt.line, code, out, tt.want)
		}
	}
}

// Interrupted during attach, run leaves no endpoint.
func TestRunInterruptedDuringAttach(t *testing.T) {
	entered := make(chan struct{})
	h := newHost(t, func(h *host) {
		h.block = func(ctx context.Context, call string) {
			if call == "Attach" {
				close(entered)
				<-ctx.Done()
			}
		}
	})
	cmd := h.command("run", "net", "--", "true")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-entered
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || errs.String() != "weft: interrupted\n" {
		t.Errorf("exit %d, %q", code, errs.String())
	}
	deadline := time.Now().Add(5 * time.Second)
	for !strings.Contains(h.take(), "Detach") {
		if time.Now().After(deadline) {
			t.Fatal("the agent does not take the endpoint back")
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.gone(t)
}
