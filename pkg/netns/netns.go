package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is where named namespaces live, the same place that iproute2 uses.
const Dir = "/run/netns"

// Path is the file that stands for the named namespace; for "" it is the caller's own. It performs no I/O.
func Path(name string) string {
	if name == "" {
		return "/proc/self/ns/net"
	}
	return filepath.Join(Dir, name)
}

// Create makes a new, empty namespace under name. A name that already refers to a namespace is success; an empty file
// that a crash left there is put to use. Safe for concurrent use.
func Create(name string) error {
	if err := valid(name); err != nil {
		return fmt.Errorf("create namespace %q: %w", name, err)
	}
	err := locked(func() error {
		done, err := prepare(name)
		if done || err != nil {
			return err
		}
		return onThread(func() error { return mountNew(Path(name)) })
	})
	if err != nil {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	return nil
}

// mountNew gives the calling thread a new namespace for as long as it takes to bind it to path.
func mountNew(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	return bind("/proc/thread-self/ns/net", path)
}

// Bind makes name refer to the namespace at srcPath (a path like /proc/PID/ns/net or /run/netns/x), which then lives at
// least as long as the name. It is success when name already refers to it, and an os.ErrExist when name refers to
// another one. A path that is absent or no network namespace is an error. Safe for concurrent use.
func Bind(srcPath, name string) error {
	if err := bindName(srcPath, name); err != nil {
		return fmt.Errorf("reference namespace %s as %s: %w", srcPath, name, err)
	}
	return nil
}

func bindName(srcPath, name string) error {
	if err := valid(name); err != nil {
		return err
	}
	src, err := open(srcPath)
	if err != nil {
		return err
	}
	defer src.Close()
	want, err := inodeOf(src)
	if err != nil {
		return err
	}
	return locked(func() error {
		done, err := prepare(name)
		if err != nil {
			return err
		}
		if done {
			have, err := Inode(Path(name))
			if err == nil && have != want {
				err = fmt.Errorf("the name refers to another namespace: %w", os.ErrExist)
			}
			return err
		}
		// The open file, not the path: what a pid stands for may change between the look and the mount.
		return bind(fmt.Sprintf("/proc/thread-self/fd/%d", src.Fd()), Path(name))
	})
}

// Delete removes the name; the namespace itself goes when nothing else refers to it. An absent name is success.
func Delete(name string) error {
	if err := valid(name); err != nil {
		return fmt.Errorf("delete namespace %q: %w", name, err)
	}
	for {
		err := unix.Unmount(Path(name), unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist) {
			break // no longer a mount point
		}
		if err != nil {
			return fmt.Errorf("delete namespace %s: unmount: %w", name, err)
		}
	}
	if err := os.Remove(Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete namespace %s: %w", name, err)
	}
	return nil
}

// Names lists the names that refer to a namespace, sorted. Stale files are left out. No directory means no names.
func Names() ([]string, error) {
	entries, err := os.ReadDir(Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		ok, err := Exists(e.Name())
		if err != nil {
			return nil, err
		}
		if ok {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Exists reports whether name refers to a namespace.
func Exists(name string) (bool, error) {
	var st unix.Statfs_t
	err := unix.Statfs(Path(name), &st)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at namespace %s: %w", name, err)
	}
	return st.Type == unix.NSFS_MAGIC, nil
}

// Inode is the inode number of the namespace that path leads to; it identifies the namespace while it lives. A missing
// path is an os.ErrNotExist.
func Inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("look at namespace %s: %w", path, err)
	}
	return st.Ino, nil
}

func inodeOf(f *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("look at namespace: %w", err)
	}
	return st.Ino, nil
}

// valid refuses what would leave Dir.
func valid(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > 255 {
		return errors.New("not a namespace name")
	}
	return nil
}

// open opens a network namespace and makes sure that it is one.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	err = unix.Fstatfs(int(f.Fd()), &st)
	if err == nil && st.Type == unix.NSFS_MAGIC {
		// ioctl_ns(2): says which kind of namespace the file is.
		kind, ierr := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
		if ierr == nil && kind == unix.CLONE_NEWNET {
			return f, nil
		}
	}
	f.Close()
	return nil, errors.Join(fmt.Errorf("%s is no network namespace", path), err)
}

// prepare makes Dir a shared mount and the file for name; done says that it already refers to a namespace.
func prepare(name string) (done bool, err error) {
	if err := share(); err != nil {
		return false, err
	}
	f, err := os.OpenFile(Path(name), os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0)
	if errors.Is(err, fs.ErrExist) {
		return Exists(name)
	}
	if err != nil {
		return false, err
	}
	return false, f.Close()
}

// share makes Dir a shared mount of its own, so that what is mounted in it shows in every mount namespace that has it.
func share() error {
	err := unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if !errors.Is(err, unix.EINVAL) { // EINVAL: not a mount point yet
		return wrap("share "+Dir, err)
	}
	if err := unix.Mount(Dir, Dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return wrap("mount "+Dir, err)
	}
	return wrap("share "+Dir, unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, ""))
}

func bind(src, dst string) error {
	return wrap("mount", unix.Mount(src, dst, "none", unix.MS_BIND, ""))
}

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// locked runs fn while holding the lock on Dir that iproute2 takes too: two who make it a mount at once would stack two.
func locked(fn func() error) error {
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return err
	}
	d, err := os.Open(Dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return wrap("lock "+Dir, err)
	}
	err = fn()
	runtime.KeepAlive(d)
	return err
}
