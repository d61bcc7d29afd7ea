package store

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/keys"
)

// childEnv makes this test binary print the identity of the store it names instead of running tests.
const childEnv = "WEFT_TEST_STORE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		s, err := Open(dir)
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		id, err := s.Identity()
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Stdout.WriteString(id.Public().String())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wireguard(t *testing.T, s *Store, generation int) keys.PrivateKey {
	t.Helper()
	k, err := s.WireGuard(generation)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func identity(t *testing.T, s *Store) keys.Identity {
	t.Helper()
	id, err := s.Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestKeysLast(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "keys")
	s := open(t, dir)
	id, k1, k2 := identity(t, s), wireguard(t, s, 1), wireguard(t, s, 2)
	if k1.Equal(k2) || k1.IsZero() || id.IsZero() {
		t.Error("keys are not keys of their own")
	}
	again := open(t, dir)
	if !identity(t, again).Equal(id) || !wireguard(t, again, 1).Equal(k1) || !wireguard(t, again, 2).Equal(k2) {
		t.Error("a second store has other keys")
	}
	for name, want := range map[string]os.FileMode{".": 0o700, "identity.key": 0o600, "wg-1.key": 0o600, "wg-2.key": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
}

func TestGenerations(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, g := range []int{10, 9, 2} {
		wireguard(t, s, g)
	}
	for _, stray := range []string{"wg-01.key", "wg-0.key", "wg--1.key", "wg-x.key", "wg-3.key.bak", "wg-.key", "identity.key.old"} {
		if err := os.WriteFile(filepath.Join(dir, stray), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want ...int) {
		t.Helper()
		got, err := open(t, dir).Generations()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	check(2, 9, 10)
	old := wireguard(t, s, 9)
	for range 2 { // absent is fine
		if err := s.RemoveGeneration(9); err != nil {
			t.Fatal(err)
		}
	}
	check(2, 10)
	if wireguard(t, s, 9).Equal(old) {
		t.Error("a removed key came back")
	}
	if _, err := s.WireGuard(0); err == nil {
		t.Error("generation 0 was taken")
	}
}

func TestOneKeyForAll(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	var wg sync.WaitGroup
	got := make([]string, 24)
	for i := range got {
		wg.Go(func() {
			if i < 4 { // other processes
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), childEnv+"="+dir)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Errorf("child: %v: %s", err, out)
				}
				got[i] = string(out)
				return
			}
			s, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			id, err := s.Identity()
			if err != nil {
				t.Error(err)
			}
			got[i] = id.Public().String()
		})
	}
	wg.Wait()
	want := identity(t, open(t, dir)).Public().String()
	for i, g := range got {
		if g != want {
			t.Errorf("caller %d has %s, the file %s", i, g, want)
		}
	}
}

func TestRefusesLooseFiles(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, path string)
		want  string // %s is the file
	}{
		"group reads":   {func(t *testing.T, p string) { chmod(t, p, 0o640) }, "chmod 600 %s"},
		"others read":   {func(t *testing.T, p string) { chmod(t, p, 0o604) }, "chmod 600 %s"},
		"others write":  {func(t *testing.T, p string) { chmod(t, p, 0o602) }, "chmod 600 %s"},
		"symbolic link": {func(t *testing.T, p string) { relocate(t, p); must(t, os.Symlink(p+".real", p)) }, "%s is a symbolic link"},
		"dangling link": {func(t *testing.T, p string) { must(t, os.Remove(p)); must(t, os.Symlink("nowhere", p)) }, "%s is a symbolic link"},
		"FIFO":          {func(t *testing.T, p string) { must(t, os.Remove(p)); must(t, syscall.Mkfifo(p, 0o600)) }, "%s is not a regular file"},
		"directory":     {func(t *testing.T, p string) { must(t, os.Remove(p)); must(t, os.Mkdir(p, 0o700)) }, "%s is not a regular file"},
	} {
		for _, file := range []string{"identity.key", "wg-1.key"} {
			t.Run(name+"/"+file, func(t *testing.T) {
				dir := t.TempDir()
				s := open(t, dir)
				identity(t, s)
				wireguard(t, s, 1)
				path := filepath.Join(dir, file)
				tc.spoil(t, path)
				want := strings.ReplaceAll(tc.want, "%s", path)
				_, openErr := Open(dir)
				_, err := s.Identity()
				if file != "identity.key" {
					_, err = s.WireGuard(1)
				}
				for _, err := range []error{openErr, err} {
					if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
						t.Errorf("error is %v, want one with %q", err, want)
					}
				}
			})
		}
	}
}

func TestRefusesForeignFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives a file to another user")
	}
	dir := t.TempDir()
	identity(t, open(t, dir))
	must(t, os.Chown(filepath.Join(dir, "identity.key"), 12345, -1))
	if _, err := Open(dir); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("error is %v", err)
	}
	other := t.TempDir()
	must(t, os.Chown(other, 12345, -1))
	if _, err := Open(other); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("error is %v", err)
	}
}

func TestRefusesLooseDirectory(t *testing.T) {
	dir := t.TempDir()
	for _, mode := range []os.FileMode{0o770, 0o707, 0o777 | os.ModeSticky} {
		chmod(t, dir, mode)
		if _, err := Open(dir); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "chmod 700 "+dir) {
			t.Errorf("mode %v: error is %v", mode, err)
		}
	}
	chmod(t, dir, 0o755)
	open(t, dir)
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := Open(file); err == nil {
		t.Error("a file was opened as a store")
	}
}

func TestKeepsMalformedKeys(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	identity(t, s)
	wireguard(t, s, 1)
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		return string(b)
	}
	id, wg := read("identity.key"), read("wg-1.key")
	zero := strings.Repeat("A", 43) + "=\n"
	for name, tc := range map[string]struct{ id, wg string }{
		"empty":               {"", ""},
		"only a line break":   {"\n", "\n"},
		"cut short":           {id[:20], wg[:20]},
		"no line break":       {strings.TrimSpace(id), strings.TrimSpace(wg)},
		"two line breaks":     {id + "\n", wg + "\n"},
		"carriage return":     {strings.TrimSpace(id) + "\r\n", strings.TrimSpace(wg) + "\r\n"},
		"each other's":        {wg, id},
		"leading blank":       {" " + id, " " + wg},
		"a line more":         {id + id, wg + wg},
		"large":               {id + strings.Repeat("x", 9999), wg + strings.Repeat("x", 9999)},
		"all zero":            {identityPrefix + zero, zero},
		"not base64":          {identityPrefix + strings.Repeat("!", 44) + "\n", strings.Repeat("!", 44) + "\n"},
		"break inside":        {id[:30] + "\n" + id[30:], wg[:30] + "\n" + wg[30:]},
		"zeros after a crash": {strings.Repeat("\x00", len(id)), strings.Repeat("\x00", len(wg))},
	} {
		t.Run(name, func(t *testing.T) {
			for file, content := range map[string]string{"identity.key": tc.id, "wg-1.key": tc.wg} {
				path := filepath.Join(dir, file)
				must(t, os.WriteFile(path, []byte(content), 0o600))
				_, err := s.Identity()
				if file == "wg-1.key" {
					_, err = s.WireGuard(1)
				}
				if err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error is %v", err)
				} else if part := strings.TrimSpace(content); len(part) > 8 && strings.Contains(err.Error(), part[len(part)-9:]) {
					t.Errorf("the error quotes the file: %v", err)
				}
				if got := read(file); got != content {
					t.Errorf("the file was changed to %q", got)
				}
			}
		})
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	must(t, os.Chmod(path, mode))
}

func relocate(t *testing.T, path string) {
	t.Helper()
	must(t, os.Rename(path, path+".real"))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
