package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Enter replaces the process by argv inside the network namespace at path, with environment env. When resolvConf is
// not empty the program sees that file as /etc/resolv.conf, in a mount namespace of its own; nobody else does. argv[0]
// without a slash is looked up in env's PATH. It returns only on error: an os.ErrNotExist or os.ErrPermission when the
// program or the namespace is the cause.
func Enter(path string, resolvConf string, argv []string, env []string) error {
	if len(argv) == 0 {
		return errors.New("run: no command given")
	}
	prog, err := lookPath(argv[0], env)
	if err != nil {
		return err
	}
	f, err := open(path)
	if err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	defer f.Close()
	// Never unlocked: on error the thread is in a strange place, and the caller is about to exit anyway.
	runtime.LockOSThread()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace %s: %w", path, err)
	}
	if resolvConf != "" {
		if err := mountResolvConf(resolvConf); err != nil {
			return err
		}
	}
	return fmt.Errorf("run %s: %w", prog, unix.Exec(prog, argv, env))
}

// mountResolvConf gives the thread its own mounts, slaves of the old ones so that what the host mounts later still
// shows, and lays src over /etc/resolv.conf there.
func mountResolvConf(src string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "none", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	dst, err := linkTarget("/etc/resolv.conf")
	if err != nil {
		return err
	}
	if err := unix.Mount(src, dst, "none", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s over %s: %w", src, dst, err)
	}
	return nil
}

// linkTarget follows symbolic links from path and makes the file they lead to when it is missing, for a mount needs
// something to lie on.
func linkTarget(path string) (string, error) {
	for range 40 { // as many as the kernel follows, path_resolution(7)
		to, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("make a place for resolv.conf: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o644)
	if err != nil {
		return "", fmt.Errorf("make a place for resolv.conf: %w", err)
	}
	return path, f.Close()
}

// lookPath finds the program that name stands for in the PATH of env.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var denied error
	for _, dir := range filepath.SplitList(path) {
		p := filepath.Join(dir, name)
		err := executable(p)
		if err == nil {
			return p, nil
		}
		if errors.Is(err, fs.ErrPermission) {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", fmt.Errorf("run %s: no such command in PATH: %w", name, fs.ErrNotExist)
}

func executable(p string) error {
	st, err := os.Stat(p)
	if err != nil {
		return fmt.Errorf("run %s: %w", p, errors.Unwrap(err))
	}
	if st.IsDir() {
		return fmt.Errorf("run %s: is a directory: %w", p, fs.ErrPermission)
	}
	if st.Mode()&0o111 == 0 {
		return fmt.Errorf("run %s: not executable: %w", p, fs.ErrPermission)
	}
	return nil
}
