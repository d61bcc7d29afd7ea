package wireguard

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"weft/pkg/kstate"
)

// spawn starts an engine that owes the agent nothing: its own session, no terminal, the root directory, no open file of
// the agent's, and none of its environment, for that may hold a Consul token.
func spawn(cfg EngineConfig, device string, mtu int) (pid int, err error) {
	exe := cfg.Executable
	if exe == "" {
		if exe, err = os.Executable(); err != nil {
			return 0, err
		}
	}
	in, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := openLog(cfg.LogFile)
	if err != nil {
		return 0, fmt.Errorf("open log: %w", err)
	}
	defer out.Close()
	closeOnExec()
	args := []string{exe, "engine", "--device", device, "--netns", kstate.Transit, "--mtu", strconv.Itoa(mtu)}
	if cfg.Plain {
		args = append(args, "--plain")
	}
	p, err := os.StartProcess(exe, args,
		&os.ProcAttr{
			Dir:   "/",
			Env:   []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
			Files: []*os.File{in, out, out},
			Sys:   &unix.SysProcAttr{Setsid: true},
		})
	if err != nil {
		return 0, err
	}
	pid = p.Pid // before Release, which makes it -1: to kill and wait4 that is every process there is
	return pid, p.Release()
}

// maxLog is the size in bytes at which an engine's log is set aside when the next engine starts.
const maxLog = 1 << 20

func openLog(path string) (*os.File, error) {
	if path == "" {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if logSize(path) > maxLog {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

func logSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// lastLine is ": " and the last line that was logged after offset from, or "" when there is none.
func lastLine(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const tail = 4096
	size := logSize(path)
	if from > size {
		from = 0 // a new file
	}
	text := make([]byte, min(size-from, tail))
	n, err := f.ReadAt(text, size-int64(len(text)))
	if err != nil && err != io.EOF {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(text[:n]), []byte("\n"))
	last := lines[len(lines)-1]
	if len(last) == 0 {
		return ""
	}
	return ": " + string(last)
}

// closeOnExec marks what this process inherited without the mark, as from a service manager that passes sockets. Go
// marks what it opens itself.
func closeOnExec() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

// children are the engines this process started, kept so that one that ends does not stay a zombie: they are waited for
// whenever an engine is made or removed, which is what follows an engine's end, and need no goroutine. An engine that
// outlives the process is waited for by whoever inherits it. The zero value is empty; safe for concurrent use.
type children struct {
	mu   sync.Mutex
	pids map[int]string // how it ended, "" while it runs
}

func (c *children) add(pid int) {
	if pid <= 1 {
		panic("wireguard: no child has this process id")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pids == nil {
		c.pids = map[int]string{}
	}
	c.pids[pid] = ""
}

// kill sends a signal to a child that was added and has not been waited for: nobody else can have its id.
func (c *children) kill(pid int, signal unix.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.pids[pid]; !ok || c.check(pid) != "" {
		return os.ErrProcessDone
	}
	return unix.Kill(pid, signal)
}

// reap collects all that have ended and forgets them.
func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for pid := range c.pids {
		if c.check(pid) != "" {
			delete(c.pids, pid)
		}
	}
}

// ended reports whether the child has ended, and how.
func (c *children) ended(pid int) (bool, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	how := c.check(pid)
	return how != "", how
}

// check looks at a child that was added.
func (c *children) check(pid int) string {
	if how, ok := c.pids[pid]; how != "" || !ok {
		return how
	}
	var status unix.WaitStatus
	got, err := unix.Wait4(pid, &status, unix.WNOHANG, nil)
	how := ""
	switch {
	case err == unix.ECHILD: // somebody else has waited for it
		how = "status unknown"
	case got == pid && status.Exited():
		how = fmt.Sprintf("exit status %d", status.ExitStatus())
	case got == pid:
		how = status.Signal().String()
	}
	c.pids[pid] = how
	return how
}
