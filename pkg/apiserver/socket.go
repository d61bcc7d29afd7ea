package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketMode lets the owner and its group connect; what they may do is decided by their uid.
const socketMode = 0o660

const (
	probeTimeout = time.Second
	lockTimeout  = 5 * time.Second
	lockPoll     = 20 * time.Millisecond
)

// listen opens the socket at path. A socket file that a dead agent left is removed; one that answers is not.
//
// Two agents that start at once would both find the old file dead, and the second would remove the first one's new
// socket. So probing, removing and binding happen under a lock on the directory, which leaves no lock file behind and
// which the kernel frees if we die.
func listen(ctx context.Context, path, group string) (*net.UnixListener, error) {
	// sun_path holds 108 bytes with its NUL (unix(7)); the kernel would only say "invalid argument".
	if len(path) > 107 {
		return nil, fmt.Errorf("listen on %s: the path is longer than 107 bytes", path)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory of the agent's socket: %w", err)
	}
	unlock, err := lockDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// Linux gives the bound file the mode of the socket's own inode, less the umask: no moment with a wider mode.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmod error
		if err := c.Control(func(fd uintptr) { chmod = unix.Fchmod(int(fd), socketMode) }); err != nil {
			return err
		}
		return chmod
	}}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := errors.Join(os.Chmod(path, socketMode), giveTo(path, group)); err != nil {
		l.Close()
		return nil, fmt.Errorf("set mode and group of %s: %w", path, err)
	}
	return l.(*net.UnixListener), nil
}

// giveTo lets the members of a group connect, when there is such a group: they may read (see admit).
func giveTo(path, group string) error {
	if group == "" {
		return nil
	}
	g, err := user.LookupGroup(group)
	var unknown user.UnknownGroupError
	if errors.As(err, &unknown) {
		return nil
	}
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return err
	}
	return os.Chown(path, -1, gid)
}

// removeStale makes room at path, unless something there is alive or is no socket.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if fi.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("listen on %s: something that is not a socket is there; move it away or set another socket", path)
	}
	c, err := net.DialTimeout("unix", path, probeTimeout)
	if err == nil {
		c.Close()
		return fmt.Errorf("another agent answers on %s; stop it first, or set another socket", path)
	}
	// Only a refusal proves that nobody listens: a full backlog or missing rights say nothing.
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("find out whether another agent answers on %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}

// lockDir takes an exclusive lock on a directory, for the short time that listen needs.
func lockDir(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open directory of the agent's socket: %w", err)
	}
	deadline := time.NewTimer(lockTimeout)
	defer deadline.Stop()
	poll := time.NewTicker(lockPoll)
	defer poll.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, ctx.Err())
		case <-deadline.C:
			f.Close()
			return nil, fmt.Errorf("lock %s: another process has held it for %s", dir, lockTimeout)
		case <-poll.C:
		}
	}
}
