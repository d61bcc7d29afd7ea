package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Entering a host takes two processes. `weft lab enter` stays outside and moves one of its threads into the host; a
// child started from that thread, `weft lab start`, is inside, and becomes the command. The one outside passes
// signals on and hands the exit code back.

// runEnter runs argv in a host and returns its exit code, 128+n when signal n ended it. With daemon set, argv is
// started under that name and left running.
func runEnter(dir, host, daemon string, argv []string) (int, error) {
	l, err := Open(dir)
	if err != nil {
		return exitFailed, err
	}
	inside := []string{"lab", verbStart}
	env := hostEnv(os.Environ(), l.state.Weft, l.state.Consul)
	if daemon != "" {
		inside = append(inside, "--daemon", filepath.Join(dir, host, daemon))
		env = cleanEnv(l.state.Weft)
	}
	// By this name the running executable is found also where its own path is hidden.
	cmd := exec.Command("/proc/self/exe", append(append(inside, "--"), argv...)...)
	cmd.Args[0] = "weft"
	cmd.Dir, cmd.Env = "/", env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr

	signals := make(chan os.Signal, 16)
	if relay := relayed(); len(relay) > 0 { // none would mean all
		signal.Notify(signals, relay...)
		defer signal.Stop(signals)
	}
	started, done := make(chan error, 1), make(chan error, 1)
	go func() {
		// Never unlocked: the thread is in the host's namespaces and ends with this goroutine. It must live as long as
		// the child, which is killed when the thread that started it ends.
		runtime.LockOSThread()
		err := l.enterThread(host)
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return exitFailed, fmt.Errorf("enter host %s: %w", host, err)
	}
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s) // it may have ended just now
		case err := <-done:
			return exitCode(err)
		}
	}
}

// relayed are the signals passed on, except those that were ignored when we started, which stay ignored for the child
// too. On a terminal the child gets Ctrl-C and Ctrl-\ from there; these are caught all the same, so that they do not
// end us before the child.
func relayed() []os.Signal {
	_, err := unix.IoctlGetTermios(0, unix.TCGETS)
	terminal := err == nil
	var relay []os.Signal
	for _, s := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT} {
		switch {
		case signal.Ignored(s):
		case terminal && (s == unix.SIGINT || s == unix.SIGQUIT):
			signal.Notify(make(chan os.Signal, 1), s)
		default:
			relay = append(relay, s)
		}
	}
	return relay
}

func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return exitFailed, fmt.Errorf("run in host: %w", err)
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// enterThread moves the calling thread, which must be locked, into the host's namespaces; the PID namespace holds for
// its children only. All are opened first: in the host's mount namespace /proc shows other processes.
func (l *Lab) enterThread(host string) error {
	h, err := l.live(host)
	if err != nil {
		return err
	}
	kinds := []struct {
		name string
		flag int
	}{{"mnt", unix.CLONE_NEWNS}, {"uts", unix.CLONE_NEWUTS}, {"net", unix.CLONE_NEWNET}, {"pid", unix.CLONE_NEWPID}}
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, k := range kinds {
		fd, err := unix.Open(procPath(h.PID, "ns", k.name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s namespace: %w", k.name, err)
		}
		fds = append(fds, fd)
	}
	if _, err := l.live(host); err != nil { // else these may be another process's
		return err
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare file system attributes: %w", err)
	}
	for i, k := range kinds {
		if err := unix.Setns(fds[i], k.flag); err != nil {
			return fmt.Errorf("enter %s namespace: %w", k.name, err)
		}
	}
	return nil
}

// hostEnv is the caller's environment with plain `weft` and `consul` talking to the host's own agents.
func hostEnv(env []string, weft, consul string) []string {
	path := defaultPath
	env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		key, value, _ := strings.Cut(kv, "=")
		if key == "PATH" && value != "" {
			path = value
		}
		return key == "PATH" || key == "WEFT_SOCKET" || key == "CONSUL_HTTP_ADDR"
	})
	return append(env, "PATH="+labPath(weft, path)+":"+filepath.Dir(consul))
}

// runStart is the inner half: it becomes argv, or starts it as a daemon. It returns only an exit code for failure.
func runStart(daemon string, argv []string) (int, error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return exitNotExecutable, fmt.Errorf("run in host: %w", err)
		}
		return exitNotFound, fmt.Errorf("run in host: %w", err)
	}
	if daemon != "" {
		return exitOf(startDaemon(daemon, path, argv))
	}
	// The wish to end with the outer half belongs to this thread and survives exec. A parent outside the namespace is
	// shown as 0; another number means that it ended already.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return exitFailed, fmt.Errorf("run in host: %w", err)
	}
	if os.Getppid() != 0 {
		return exitFailed, errors.New("run in host: the caller ended")
	}
	return exitNotExecutable, fmt.Errorf("run %s: %w", path, syscall.Exec(path, argv, os.Environ()))
}

func exitOf(err error) (int, error) {
	if err != nil {
		return exitFailed, err
	}
	return 0, nil
}
