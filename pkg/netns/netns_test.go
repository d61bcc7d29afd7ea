package netns_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/pkg/netns"
	"weft/pkg/netns/netnstest"
)

func TestMain(m *testing.M) {
	if os.Getenv("WEFT_TEST_ENTER") != "" {
		enterChild()
	}
	netnstest.Main(m)
}

func create(t *testing.T, name string) {
	t.Helper()
	netnstest.Need(t)
	t.Cleanup(func() { _ = netns.Delete(name) })
	if err := netns.Create(name); err != nil {
		t.Fatal(err)
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	n, err := netns.Inode(path)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func names(t *testing.T) []string {
	t.Helper()
	got, err := netns.Names()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestCreateAndDelete(t *testing.T) {
	create(t, "weft-t")
	first := inode(t, netns.Path("weft-t"))
	if first == inode(t, netns.Path("")) {
		t.Fatal("the new namespace is the old one")
	}
	if err := netns.Create("weft-t"); err != nil {
		t.Fatalf("second create: %v", err)
	}
	if again := inode(t, netns.Path("weft-t")); again != first {
		t.Fatalf("second create made another namespace: inode %d, was %d", again, first)
	}
	if diff := cmp.Diff([]string{"weft-t"}, names(t)); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	for range 2 { // absent is success
		if err := netns.Delete("weft-t"); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(t); len(got) != 0 {
		t.Errorf("names after delete: %v", got)
	}
}

func TestStaleFileIsPutToUse(t *testing.T) {
	create(t, "one")
	if err := os.WriteFile(netns.Path("two"), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"one"}, names(t)); diff != "" {
		t.Errorf("a plain file is no namespace (-want +got):\n%s", diff)
	}
	create(t, "two")
	if diff := cmp.Diff([]string{"one", "two"}, names(t)); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestBind(t *testing.T) {
	create(t, "src")
	create(t, "other")
	t.Cleanup(func() { _ = netns.Delete("ref") })
	for range 2 {
		if err := netns.Bind(netns.Path("src"), "ref"); err != nil {
			t.Fatal(err)
		}
	}
	want := inode(t, netns.Path("src"))
	if err := netns.Bind(netns.Path("other"), "ref"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("bind another namespace to a taken name: %v, want ErrExist", err)
	}
	if err := netns.Delete("src"); err != nil {
		t.Fatal(err)
	}
	if got := inode(t, netns.Path("ref")); got != want {
		t.Errorf("inode %d, want %d: the reference must keep the namespace", got, want)
	}
	if err := netns.Bind("/nonexistent", "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("bind a missing path: %v, want ErrNotExist", err)
	}
	for _, bad := range []string{"/etc/passwd", "/proc/self/ns/mnt"} {
		if err := netns.Bind(bad, "x"); err == nil || !strings.Contains(err.Error(), "no network namespace") {
			t.Errorf("bind %s: %v", bad, err)
		}
	}
	if ok, err := netns.Exists("x"); ok || err != nil {
		t.Errorf("a failed bind left a name: %v %v", ok, err)
	}
}

func TestBadNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "a\x00b"} {
		if netns.Create(name) == nil || netns.Delete(name) == nil {
			t.Errorf("name %q was accepted", name)
		}
	}
}

func TestDo(t *testing.T) {
	create(t, "in")
	want, home := inode(t, netns.Path("in")), inode(t, "/proc/thread-self/ns/net")
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				err := netns.Do("in", func() error {
					if got := inode(t, "/proc/thread-self/ns/net"); got != want {
						t.Errorf("inside: inode %d, want %d", got, want)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				if got := inode(t, "/proc/thread-self/ns/net"); got != home {
					t.Errorf("outside: inode %d, want %d", got, home)
				}
			}
		})
	}
	wg.Wait()
	sentinel := errors.New("x")
	if err := netns.Do("in", func() error { return sentinel }); err != sentinel {
		t.Errorf("error of the function: %v", err)
	}
	if err := netns.Do("absent", func() error { return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent namespace: %v, want ErrNotExist", err)
	}
	err := netns.Do("in", func() error {
		ifs, err := net.Interfaces()
		if err == nil && (len(ifs) != 1 || ifs[0].Name != "lo") {
			err = fmt.Errorf("interfaces %v, want lo alone", ifs)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestConcurrentCreate(t *testing.T) {
	netnstest.Need(t)
	var wg sync.WaitGroup
	for i := range 20 {
		name := fmt.Sprintf("c%d", i/2)
		t.Cleanup(func() { _ = netns.Delete(name) })
		wg.Go(func() {
			if err := netns.Create(name); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := names(t); len(got) != 10 {
		t.Errorf("names %v, want 10", got)
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), " "+netns.Dir+" "); n != 1 {
		t.Errorf("%s is mounted %d times, want once", netns.Dir, n)
	}
}

func TestCheckShared(t *testing.T) {
	netnstest.Need(t)
	err := netns.CheckShared() // the test runs with private mounts
	if err == nil || !strings.Contains(err.Error(), "PrivateTmp=") {
		t.Errorf("private mounts: %v, want an error that names the unit options", err)
	}
}

// enterChild is the process that TestEnter starts.
func enterChild() {
	err := netns.Enter(os.Getenv("WEFT_TEST_ENTER"), os.Getenv("WEFT_TEST_RESOLV"), os.Args[1:], os.Environ())
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestEnter(t *testing.T) {
	create(t, "target")
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 192.0.2.53\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile("/etc/resolv.conf")
	run := func(path, resolv string, argv ...string) (string, error) {
		cmd := exec.Command(os.Args[0], argv...)
		cmd.Env = append(os.Environ(), "WEFT_TEST_ENTER="+path, "WEFT_TEST_RESOLV="+resolv)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run(netns.Path("target"), resolv, "sh", "-c", "stat -Lc %i /proc/self/ns/net; cat /etc/resolv.conf; ls /sys/fs/cgroup >/dev/null; exit 7")
	want := fmt.Sprintf("%d\nnameserver 192.0.2.53\n", inode(t, netns.Path("target")))
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 7 {
		t.Errorf("exit: %v, want 7", err)
	}
	if after, _ := os.ReadFile("/etc/resolv.conf"); string(after) != string(before) {
		t.Error("the host's resolv.conf changed")
	}
	for name, c := range map[string]struct{ path, prog, want string }{
		"no such command":   {netns.Path("target"), "no-such-command-here", "run no-such-command-here: no such command in PATH"},
		"no such file":      {netns.Path("target"), "/no/such/file", "run /no/such/file: no such file or directory"},
		"not executable":    {netns.Path("target"), "/etc/passwd", "run /etc/passwd: not executable"},
		"a directory":       {netns.Path("target"), "/etc", "run /etc: is a directory"},
		"no such namespace": {netns.Path("gone"), "true", "enter namespace: open /run/netns/gone: no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := run(c.path, "", c.prog)
			if err == nil || !strings.Contains(out, c.want) {
				t.Errorf("got %v %q, want %q", err, out, c.want)
			}
		})
	}
}
