package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// tools of this machine that the tests call in the guest, with the libraries they load. The rest comes from busybox,
// whose own ip knows no namespaces and whose shell runs its applets before those on PATH.
var tools = strings.Fields("ip bridge nft nsenter getent wg ping iptables tc")

// writeImage writes an initramfs. It is not compressed: QEMU puts it into the guest's memory as it is, and unpacking
// would be emulated.
func writeImage(ctx context.Context, path, root, dir string, k kernelFiles, chosen []suite) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	a := &archive{w: bufio.NewWriterSize(f, 1<<20), seen: map[string]bool{}}
	a.dirs("/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/var", "/usr/sbin", "/sbin")
	a.link("/var/run", "../run")
	a.text("/init", 0o755, script(chosen))
	a.text("/etc/hosts", 0o644, "127.0.0.1 localhost\n")
	a.text("/etc/resolv.conf", 0o644, "")
	a.text("/etc/protocols", 0o644, "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\n") // nft prints names
	a.text("/etc/nsswitch.conf", 0o644, "hosts: files dns\n")
	a.text("/etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
	a.programs(ctx)
	var list strings.Builder
	for _, m := range k.modules {
		a.file(m, "/mods/"+filepath.Base(m), 0o644)
		list.WriteString(filepath.Base(m) + "\n")
	}
	a.text("/mods/list", 0o644, list.String())
	for _, s := range chosen {
		a.file(filepath.Join(dir, s.name+".test"), "/t/"+s.name+".test", 0o755)
		for _, n := range s.needs {
			from := filepath.Join(dir, n)
			if n != "weft" {
				from = filepath.Join(root, "bin", n)
			}
			a.file(from, "/t/"+n, 0o755)
		}
	}
	a.end()
	if err := errors.Join(a.err, a.w.Flush(), f.Close()); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return nil
}

// programs puts in the shell, the tools, and busybox for what is left.
func (a *archive) programs(ctx context.Context) {
	a.program(ctx, "dash", "/bin/sh")
	a.program(ctx, "busybox", "/bin/busybox")
	for _, t := range tools {
		a.program(ctx, t, "/usr/bin/"+t)
	}
	applets, err := command(ctx, "", "busybox", "--list")
	a.fail(err)
	for name := range strings.FieldsSeq(applets) {
		if name == "busybox" || name == "sh" || a.seen["/usr/bin/"+name] {
			continue
		}
		a.link("/bin/"+name, "busybox")
	}
	a.link("/usr/bin/env", "../../bin/busybox")
	a.link("/usr/bin/iptables-nft", "iptables")
	// iptables loads what its words mean.
	if found, _ := filepath.Glob("/usr/lib/*/xtables/lib*t_*.so"); len(found) > 0 {
		for _, lib := range found {
			a.file(lib, lib, 0o644)
		}
	}
}

var libraryPath = regexp.MustCompile(`/[^ ]+`)

// program puts in a program of this machine and the libraries that ldd names for it.
func (a *archive) program(ctx context.Context, name, to string) {
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		a.fail(err)
		return
	}
	a.file(path, to, 0o755)
	out, err := exec.CommandContext(ctx, "ldd", path).Output()
	if err != nil {
		return // a static program has none
	}
	for line := range strings.Lines(string(out)) {
		if lib := libraryPath.FindString(line); lib != "" && !strings.HasSuffix(lib, ":") {
			a.file(lib, lib, 0o755)
		}
	}
}

// archive writes the "newc" format of cpio (linux: Documentation/driver-api/early-userspace/buffer-format.rst). The
// first error stays.
type archive struct {
	w       *bufio.Writer
	written int64
	inode   int
	seen    map[string]bool
	err     error
}

const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
)

func (a *archive) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

func (a *archive) dirs(paths ...string) {
	for _, p := range paths {
		if p == "/" || a.seen[p] {
			continue
		}
		a.dirs(filepath.Dir(p))
		a.entry(p, typeDir|0o755, 0, strings.NewReader(""))
	}
}

func (a *archive) text(path string, mode int, text string) {
	a.dirs(filepath.Dir(path))
	a.entry(path, typeFile|mode, int64(len(text)), strings.NewReader(text))
}

func (a *archive) link(path, to string) {
	a.dirs(filepath.Dir(path))
	a.entry(path, typeLink|0o777, int64(len(to)), strings.NewReader(to))
}

// file puts in a file; one that is there already stays.
func (a *archive) file(from, to string, mode int) {
	if a.seen[to] || a.err != nil {
		return
	}
	f, err := os.Open(from)
	if err != nil {
		a.fail(err)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		a.fail(errors.Join(err, fmt.Errorf("%s: %w", from, fs.ErrInvalid)))
		return
	}
	a.dirs(filepath.Dir(to))
	a.entry(to, typeFile|mode, info.Size(), f)
}

func (a *archive) entry(path string, mode int, size int64, r io.Reader) {
	if a.err != nil {
		return
	}
	a.seen[path] = true
	a.inode++
	name := strings.TrimPrefix(path, "/")
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	a.copy(strings.NewReader(head), int64(len(head)))
	a.copy(r, size)
}

// copy writes exactly size bytes and fills up to a multiple of four.
func (a *archive) copy(r io.Reader, size int64) {
	n, err := io.CopyN(a.w, r, size)
	a.fail(err)
	a.written += n
	for ; a.written%4 != 0; a.written++ {
		a.fail(a.w.WriteByte(0))
	}
}

func (a *archive) end() { a.entry("/TRAILER!!!", 0, 0, strings.NewReader("")) }
