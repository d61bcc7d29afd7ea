package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// The child's ends of the two pipes that it shares with us: fds after stdin, stdout and stderr.
const (
	statusFD = 3
	gateFD   = 4
)

// program is what to start where.
type program struct {
	netns  string // path
	resolv string // file, may be empty
	argv   []string
	detach bool     // in a session of its own, without our input and output
	log    *os.File // with detach: where its output goes, may be nil
}

// child is a started program that waits at its gate until release.
type child struct {
	cmd    *exec.Cmd
	status *os.File // says why the program could not be executed; closed by its exec
	gate   *os.File
	detach bool
}

// spawn starts `weft internal-enter` for p. A foreground program dies with us (SIGKILL when we are killed): its
// endpoint, its terminal and its exit code have no other owner.
func (a *app) spawn(p program) (*child, error) {
	statusR, statusW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	gateR, gateW, err := os.Pipe()
	if err != nil {
		statusR.Close()
		statusW.Close()
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	// Not os.Executable: that name may belong to a newer weft by now.
	args := []string{"internal-enter", "--netns", p.netns, "--resolv", p.resolv, "--tied=" + strconv.FormatBool(!p.detach), "--"}
	cmd := exec.Command("/proc/self/exe", append(args, p.argv...)...)
	cmd.Args[0] = "weft"
	cmd.ExtraFiles = []*os.File{statusW, gateR}
	if p.detach {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if p.log != nil {
			cmd.Stdout, cmd.Stderr = p.log, p.log
		}
	} else {
		// The parent whose death counts is the thread that forks (prctl(2)), so it has to live as long as we do.
		runtime.LockOSThread()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	}
	err = cmd.Start()
	statusW.Close()
	gateR.Close()
	if err != nil {
		statusR.Close()
		gateW.Close()
		return nil, fmt.Errorf("start %s: %w", p.argv[0], err)
	}
	return &child{cmd: cmd, status: statusR, gate: gateW, detach: p.detach}, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// close frees the pipes; a child still at its gate ends.
func (c *child) close() {
	c.gate.Close()
	c.status.Close()
}

// abort ends a child that was not released.
func (c *child) abort() {
	c.gate.Close()
	c.cmd.Wait() // it exits with an error by design
}

// release lets the child execute its program and returns when it does, or why it does not.
func (c *child) release() error {
	_, err := c.gate.Write([]byte{1})
	c.gate.Close()
	if err != nil {
		c.abort()
		return fmt.Errorf("start program: its process ended before it could enter the namespace: %w", err)
	}
	said, err := io.ReadAll(c.status)
	if err != nil {
		c.abort()
		return fmt.Errorf("start program: %w", err)
	}
	if len(said) > 0 {
		c.abort()
		return parseEnterError(string(said))
	}
	if c.detach {
		return c.cmd.Process.Release()
	}
	return nil
}

// wait passes signals on until the program ends and returns its code as an exitError, nil for 0.
func (c *child) wait(sigs *relay) error {
	done := make(chan error, 1)
	go func() { done <- c.cmd.Wait() }()
	err := sigs.until(done, c.cmd.Process)
	ps := c.cmd.ProcessState
	if ps == nil {
		return fmt.Errorf("wait for program: %w", err)
	}
	ws := ps.Sys().(syscall.WaitStatus)
	switch {
	case ws.Signaled():
		return exitError{code: exitSignal + int(ws.Signal())}
	case ws.ExitStatus() != 0:
		return exitError{code: ws.ExitStatus()}
	}
	return nil
}

// The status pipe carries "CODE message", see enter.go.

func formatEnterError(code int, err error) string { return fmt.Sprintf("%d %v", code, err) }

func parseEnterError(s string) error {
	word, msg, _ := strings.Cut(s, " ")
	code, err := strconv.Atoi(word)
	if err != nil || code < 1 || code > 255 {
		return fmt.Errorf("start program: %s", s)
	}
	return exitError{code: code, err: fmt.Errorf("%s", msg)}
}
