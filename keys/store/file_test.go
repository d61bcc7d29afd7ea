package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	for _, tc := range []struct {
		data string
		perm os.FileMode
	}{{"first", 0o600}, {"", 0o640}, {"third", 0o644}, {strings.Repeat("x", 1<<20), 0o600}} {
		must(t, WriteFile(path, []byte(tc.data), tc.perm))
		got, err := os.ReadFile(path)
		must(t, err)
		info, err := os.Stat(path)
		must(t, err)
		if string(got) != tc.data || info.Mode().Perm() != tc.perm {
			t.Errorf("%d bytes with mode %v, want %d with %v", len(got), info.Mode(), len(tc.data), tc.perm)
		}
		if n := names(t, dir); len(n) != 1 {
			t.Errorf("left behind: %v", n)
		}
	}
	t.Chdir(dir)
	must(t, WriteFile("relative", nil, 0o600))
}

func TestWriteFileReplacesLink(t *testing.T) {
	dir := t.TempDir()
	victim, path := filepath.Join(dir, "victim"), filepath.Join(dir, "file")
	must(t, os.WriteFile(victim, []byte("precious"), 0o600))
	must(t, os.Symlink(victim, path))
	must(t, WriteFile(path, []byte("new"), 0o600))
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Errorf("the link was followed: %q, %v", got, err)
	}
}

func TestWriteFileFails(t *testing.T) {
	dir := t.TempDir()
	if err := WriteFile(filepath.Join(dir, "no", "file"), nil, 0o600); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	must(t, os.MkdirAll(filepath.Join(dir, "taken", "x"), 0o700))
	if err := WriteFile(filepath.Join(dir, "taken"), []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if n := names(t, dir); len(n) != 1 {
		t.Errorf("left behind: %v", n)
	}
}

// TestWriteFileIsPrivateFromTheStart watches a directory while files are written with no umask to help: whatever is
// open to others must have all its data, that is, its final mode.
func TestWriteFileIsPrivateFromTheStart(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	dir := t.TempDir()
	const size = 1 << 20
	var done atomic.Bool
	seen := make(chan int)
	go func() {
		n := 0
		for !done.Load() {
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				info, err := e.Info()
				if err != nil {
					continue // renamed meanwhile
				}
				n++
				if info.Mode().Perm() != 0o600 && info.Size() != size {
					t.Errorf("%s has mode %v at %d bytes", e.Name(), info.Mode(), info.Size())
				}
			}
		}
		seen <- n
	}()
	for range 20 {
		must(t, WriteFile(filepath.Join(dir, "f"), make([]byte, size), 0o644))
	}
	done.Store(true)
	if <-seen == 0 {
		t.Error("the watcher saw nothing")
	}
}

// TestSweep: what a crash between write and rename leaves is removed, other packages' files are not.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".identity.key.tmp-1", ".wg-3.key.tmp-22", ".state.json.tmp-3", ".wg-x.key.tmp-1", "other"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	open(t, dir)
	if got := strings.Join(names(t, dir), " "); got != ".state.json.tmp-3 .wg-x.key.tmp-1 other" {
		t.Errorf("left: %s", got)
	}
}
