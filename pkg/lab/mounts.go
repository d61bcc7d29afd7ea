package lab

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// makeMounts gives the host its own /proc, /sys, /run, resolv.conf and hosts file; the rest of the file system is the
// machine's. Nothing of it is seen outside.
func makeMounts(dir, name string) error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := makeSys(); err != nil {
		return err
	}
	if err := makeRun(dir, name); err != nil {
		return err
	}
	for _, file := range []string{"resolv.conf", "hosts"} {
		if err := bindOver(filepath.Join(dir, name, "etc", file), filepath.Join("/etc", file)); err != nil {
			return err
		}
	}
	return nil
}

// makeSys mounts a sysfs that shows this namespace's links, with the machine's control groups in their place.
func makeSys() error {
	const cgroup = "/sys/fs/cgroup"
	fd, err := unix.Open(cgroup, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
	}
	if err := mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if fd < 0 || !exists(cgroup) {
		return nil
	}
	return mount(fdPath(fd), cgroup, "", unix.MS_BIND|unix.MS_REC, "")
}

// makeRun mounts an empty /run, in which only the host's own directory of the lab is left, and prepares /run/netns as
// `ip netns` does.
func makeRun(dir, name string) error {
	own := filepath.Join(dir, name)
	fd, err := unix.Open(own, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", own, err)
	}
	defer unix.Close(fd)
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	if fi, err := os.Lstat("/var/run"); err == nil && fi.IsDir() { // usually a link to /run
		if err := mount("/run", "/var/run", "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	dirs := map[string]fs.FileMode{"/run/netns": 0o755, "/run/wireguard": 0o755, "/run/lock": 0o777 | fs.ModeSticky}
	if under(dir, "/run") {
		dirs[own] = 0o755
	}
	for path, mode := range dirs {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", path, err)
		}
		if err := os.Chmod(path, mode); err != nil {
			return fmt.Errorf("make %s: %w", path, err)
		}
	}
	if under(dir, "/run") {
		if err := mount(fdPath(fd), own, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if err := mount("/run/netns", "/run/netns", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return mount("", "/run/netns", "", unix.MS_SHARED, "")
}

// bindOver puts src in the place of dst, or of the file that dst links to. Where that file is missing it is made in
// the private /run; anywhere else it would be made on the machine, so then it stays missing.
func bindOver(src, dst string) error {
	target := followLinks(dst)
	if !exists(target) {
		if !under(target, "/run") {
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return fmt.Errorf("make %s: %w", filepath.Dir(target), err)
		}
		if err := os.WriteFile(target, nil, 0o644); err != nil {
			return fmt.Errorf("make %s: %w", target, err)
		}
	}
	return mount(src, target, "", unix.MS_BIND, "")
}

// followLinks is where path leads, also when nothing is there.
func followLinks(path string) string {
	for range 8 {
		to, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	if rest, ok := strings.CutPrefix(path, "/var/run/"); ok {
		return "/run/" + rest
	}
	return path
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", orText(source, "flags"), target, err)
	}
	return nil
}
