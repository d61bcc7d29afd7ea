package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Daemons of a host: the names under which their logs (NAME.log) and PIDs (NAME.pid) are kept in the host's directory.
const (
	daemonAgent  = "agent"
	daemonConsul = "consul"
)

// startDaemon runs inside a host: it starts argv in a session of its own and records it. base is the path of its log
// and PID file without their endings. This process ends at once, so the host's first process becomes the parent.
func startDaemon(base, path string, argv []string) error {
	log, err := os.OpenFile(base+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", argv[0], err)
	}
	defer log.Close()
	cmd := exec.Command(path, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", argv[0], err)
	}
	p, err := findProcess(cmd.Process.Pid)
	if err == nil {
		var data []byte
		if data, err = json.Marshal(p); err == nil {
			err = writeFile(base+".pid", data)
		}
	}
	if err != nil {
		_ = cmd.Process.Kill()
		return fmt.Errorf("start %s: %w", argv[0], errors.Join(err, cmd.Wait()))
	}
	return nil
}

// daemonStart starts argv as the named daemon of a host. One that runs already is fs.ErrExist.
func (l *Lab) daemonStart(ctx context.Context, host, name string, argv ...string) error {
	if p, err := l.daemon(host, name); err == nil {
		return fmt.Errorf("start %s on %s: it runs as process %d: %w", name, host, p.PID, fs.ErrExist)
	}
	args := append([]string{"lab", verbEnter, "--lab", l.dir, "--daemon", name, host, "--"}, argv...)
	cmd := exec.CommandContext(ctx, l.state.Weft, args...)
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("start %s on %s: %w: %s", name, host, err, bytes.TrimSpace(out))
	}
	return nil
}

// daemon finds the named daemon of a host as it is seen outside; one that does not run is fs.ErrNotExist.
func (l *Lab) daemon(host, name string) (process, error) {
	var inner process
	data, err := os.ReadFile(filepath.Join(l.dir, host, name+".pid"))
	if err == nil {
		err = json.Unmarshal(data, &inner)
	}
	if err != nil {
		return process{}, fmt.Errorf("find %s of %s: %w", name, host, err)
	}
	pids, err := l.Pids(host)
	if err != nil {
		return process{}, fmt.Errorf("find %s of %s: %w", name, host, err)
	}
	for _, pid := range pids {
		p, err := findProcess(pid)
		if err != nil || p.Start != inner.Start {
			continue
		}
		status, err := os.ReadFile(procPath(pid, "status"))
		if err == nil && parseInnerPID(status) == inner.PID {
			return p, nil
		}
	}
	return process{}, fmt.Errorf("find %s of %s: it does not run: %w", name, host, fs.ErrNotExist)
}

// daemonStop sends sig and, when that is a signal that ends processes, waits until the daemon is gone.
func (l *Lab) daemonStop(ctx context.Context, host, name string, sig unix.Signal) error {
	p, err := l.daemon(host, name)
	if err != nil {
		return err
	}
	if err := p.signal(sig); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stop %s of %s: %w", name, host, err)
	}
	switch sig {
	case unix.SIGTERM, unix.SIGKILL, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT:
	default:
		return nil
	}
	if err := p.wait(ctx); err != nil {
		return fmt.Errorf("stop %s of %s with %v: %w", name, host, sig, err)
	}
	return nil
}
