package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// A host is held by one process, `weft lab host`, the first of a PID namespace: when it ends, the kernel ends
// everything of that host, and the last reference to its namespaces, mounts and links goes with it.
//
//	up                                     holder
//	 | clone(new namespaces) ------------->  | waits on the go pipe
//	 | records PID and start time            |
//	 | writes "go" ----------------------->  | mounts, host name, sysctls
//	 | <------------------ "ready" or why not |
//
// An up that dies before it recorded the holder closes the go pipe, and the holder ends by itself: nothing is ever
// running that the state file does not name.

const (
	goFD    = 3 // of the holder: read end
	readyFD = 4 // of the holder: write end
)

const goWord, readyWord = "go", "ready"

// holderTimeout is generous: a host is made in some 20 ms.
const holderTimeout = 20 * time.Second

// starting is a holder that waits to be recorded.
type starting struct {
	name  string
	proc  process
	cmd   *exec.Cmd
	goEnd *os.File
	ready *os.File
}

// startHolder clones the holder of a host. The caller must call release or abandon.
func startHolder(dir, name, weft string) (*starting, error) {
	s := &starting{name: name}
	goRead, goWrite, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start host %s: %w", name, err)
	}
	defer goRead.Close()
	readyRead, readyWrite, err := os.Pipe()
	if err != nil {
		goWrite.Close()
		return nil, fmt.Errorf("start host %s: %w", name, err)
	}
	defer readyWrite.Close()
	s.goEnd, s.ready = goWrite, readyRead
	log, err := os.OpenFile(filepath.Join(dir, name, "host.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		s.abandon()
		return nil, fmt.Errorf("start host %s: %w", name, err)
	}
	defer log.Close()
	s.cmd = exec.Command(weft, "lab", verbHost, "--lab", dir, "--host", name)
	s.cmd.Dir, s.cmd.Env = "/", cleanEnv(weft)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.ExtraFiles = []*os.File{goRead, readyWrite} // goFD, readyFD
	s.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS,
		Setsid:     true,
	}
	if err := s.cmd.Start(); err != nil {
		s.abandon()
		return nil, fmt.Errorf("start host %s: %w", name, err)
	}
	if s.proc, err = findProcess(s.cmd.Process.Pid); err != nil {
		s.abandon()
		return nil, fmt.Errorf("start host %s: %w", name, err)
	}
	return s, nil
}

// release lets the recorded holder go on.
func (s *starting) release() error {
	_, err := io.WriteString(s.goEnd, goWord)
	if err = errors.Join(err, s.goEnd.Close()); err != nil {
		return fmt.Errorf("start host %s: %w", s.name, err)
	}
	return nil
}

// abandon lets a holder that was not recorded end by itself.
func (s *starting) abandon() {
	s.goEnd.Close()
	s.ready.Close()
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Wait()
	}
}

// await blocks until the host is ready; ctx ending is an error.
func (s *starting) await(ctx context.Context) error {
	defer s.ready.Close()
	deadline := time.Now().Add(holderTimeout)
	stop := context.AfterFunc(ctx, func() { _ = s.ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := s.ready.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("start host %s: %w", s.name, err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("start host %s: %w", s.name, ctx.Err())
	}
	said, err := io.ReadAll(s.ready)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("start host %s: %w", s.name, ctx.Err())
	case err != nil:
		return fmt.Errorf("start host %s: %w", s.name, err)
	case string(said) != readyWord:
		return fmt.Errorf("start host %s: %s", s.name, orText(string(bytes.TrimSpace(said)), "it ended without a word"))
	}
	return nil
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// cleanEnv is the environment of what the lab starts by itself: nothing of the caller's settings leaks in.
func cleanEnv(weft string) []string {
	return []string{"PATH=" + labPath(weft, defaultPath), "HOME=/root", "LANG=C.UTF-8"}
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// labPath puts the weft binary's directory first, so that plain `weft` is this one.
func labPath(weft, path string) string { return filepath.Dir(weft) + ":" + path }
