package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Killed with no chance to act, weft run takes the program along; the endpoint is tied to it, so the agent can act.
func TestRunKilled(t *testing.T) {
	h := newHost(t)
	cmd := h.command("run", "net", "--name", "x", "--", "sh", "-c", "echo ready; exec sleep 60")
	out := startReady(t, cmd)
	e, err := h.Endpoint(t.Context(), "x")
	if err != nil || e.PID == 0 || e.PID == cmd.Process.Pid {
		t.Fatalf("endpoint %+v, %v: want the program's pid, weft run has %d", e, err, cmd.Process.Pid)
	}
	pidfd, err := unix.PidfdOpen(e.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if files, _ := filepath.Glob(resolvDir + "/*"); len(files) == 0 {
			break // the last thing that weft run does before it waits
		}
		if time.Now().After(deadline) {
			t.Fatal("resolv.conf is not removed")
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	out.rest()
	cmd.Wait()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 5000)
	if n != 1 || err != nil {
		t.Errorf("the program still runs: %d, %v", n, err)
	}
}

func TestRunDetach(t *testing.T) {
	h := newHost(t)
	log := filepath.Join(t.TempDir(), "log")
	code, out, errs := h.run(t, "run", "net", "--name", "bg", "--service", "web", "--detach", "--log", log, "-o", "json", "--",
		"sh", "-c", "echo out; echo err >&2; readlink /proc/self/fd/0; exec sleep 60")
	if code != 0 || errs != "" {
		t.Fatalf("exit %d, %s", code, errs)
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(out), &fields); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, key := range []string{"id", "name", "address", "mac", "mtu", "gateway", "dns"} {
		if _, ok := fields[key]; !ok {
			t.Errorf("no %q in %s", key, out)
		}
	}
	e, err := h.Endpoint(t.Context(), "bg")
	if err != nil || e.PID == 0 {
		t.Fatalf("endpoint: %+v, %v", e, err)
	}
	t.Cleanup(func() { syscall.Kill(e.PID, syscall.SIGKILL) })
	if sid, err := unix.Getsid(e.PID); err != nil || sid != e.PID {
		t.Errorf("session %d, %v, want the program's own, %d", sid, err, e.PID)
	}
	want := "out\nerr\n/dev/null\n"
	deadline := time.Now().Add(5 * time.Second)
	for {
		data, _ := os.ReadFile(log)
		if string(data) == want {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("log: %q, want %q", data, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
	inside, err := os.Readlink("/proc/" + strconv.Itoa(e.PID) + "/ns/net")
	if host, _ := os.Readlink("/proc/self/ns/net"); err != nil || inside == host {
		t.Errorf("the program is in %s, %v", inside, err)
	}
	if got := h.take(); !strings.HasPrefix(got, "Attach SetProcess") || strings.Contains(got, "Detach") {
		t.Errorf("calls: %s", got)
	}
	if files, _ := filepath.Glob(resolvDir + "/*"); len(files) != 0 {
		t.Errorf("files left: %v", files)
	}
}

func TestRunDetachReportsWhatCannotStart(t *testing.T) {
	h := newHost(t)
	code, out, errs := h.run(t, "run", "net", "--detach", "--", "no-such-program")
	if code != 127 || out != "" || !strings.Contains(errs, "no such command in PATH") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	if got := h.take(); got != "Attach SetProcess Detach" {
		t.Errorf("calls: %s", got)
	}
	h.gone(t)
	code, _, errs = h.run(t, "run", "net", "--detach", "--log", "/no/such/dir/log", "--", "true")
	if code != 1 || !strings.Contains(errs, "open log") || h.take() != "" {
		t.Errorf("bad log: exit %d, %q", code, errs)
	}
}
