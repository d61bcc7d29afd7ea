package config

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/goleak"
)

// watched runs Watch and hands its calls out.
func watched(t *testing.T, o Options, l *Loaded) chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	calls, done := make(chan string, 100), make(chan error, 1)
	go func() {
		done <- Watch(ctx, l, o, func(l *Loaded, err error) {
			if err != nil {
				calls <- "error"
				return
			}
			calls <- l.Config.Consul.Prefix + " " + l.Config.Log.Level.String()
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
		goleak.VerifyNone(t)
	})
	return calls
}

func expect(t *testing.T, calls chan string, want string) {
	t.Helper()
	select {
	case got := <-calls:
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("no call, want %q", want)
	}
}

func silent(t *testing.T, calls chan string) {
	t.Helper()
	select {
	case got := <-calls:
		t.Errorf("unexpected call: %q", got)
	case <-time.After(4 * quiet):
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func content(prefix string) []byte { return []byte("consul: {prefix: " + prefix + "}\n") }

func TestWatch(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, dir string) (path string)
		// Each step changes something and says what is expected, "" for nothing.
		steps []func(t *testing.T, dir string) string
	}{
		{
			name: "write, rename over, break, mend, remove and make again",
			make: func(t *testing.T, dir string) string {
				must(t, os.WriteFile(dir+"/weft.yaml", content("a"), 0o600))
				return dir + "/weft.yaml"
			},
			steps: []func(t *testing.T, dir string) string{
				func(t *testing.T, dir string) string {
					must(t, os.WriteFile(dir+"/weft.yaml", content("b"), 0o600))
					return "b INFO"
				},
				func(t *testing.T, dir string) string {
					must(t, os.WriteFile(dir+"/weft.yaml", content("b"), 0o600), os.WriteFile(dir+"/unrelated", content("b"), 0o600))
					return ""
				},
				func(t *testing.T, dir string) string {
					must(t, os.WriteFile(dir+"/new", content("c"), 0o600), os.Rename(dir+"/new", dir+"/weft.yaml"))
					return "c INFO"
				},
				func(t *testing.T, dir string) string {
					must(t, os.WriteFile(dir+"/weft.yaml", []byte("{"), 0o600))
					return "error"
				},
				func(t *testing.T, dir string) string {
					must(t, os.WriteFile(dir+"/weft.yaml", content("c"), 0o600))
					return "c INFO"
				},
				func(t *testing.T, dir string) string {
					must(t, os.Remove(dir+"/weft.yaml"))
					return "error"
				},
				func(t *testing.T, dir string) string {
					must(t, os.WriteFile(dir+"/weft.yaml", content("d"), 0o600))
					return "d INFO"
				},
			},
		},
		{
			name: "directory of links into a directory that is swapped, as Kubernetes does it",
			make: func(t *testing.T, dir string) string {
				must(t, os.MkdirAll(dir+"/conf/..1", 0o755), os.WriteFile(dir+"/conf/..1/w.yaml", content("a"), 0o600),
					os.Symlink("..1", dir+"/conf/..data"), os.Symlink("..data/w.yaml", dir+"/conf/w.yaml"))
				return dir + "/conf"
			},
			steps: []func(t *testing.T, dir string) string{
				func(t *testing.T, dir string) string {
					must(t, os.MkdirAll(dir+"/conf/..2", 0o755), os.WriteFile(dir+"/conf/..2/w.yaml", content("b"), 0o600),
						os.Symlink("..2", dir+"/conf/..tmp"), os.Rename(dir+"/conf/..tmp", dir+"/conf/..data"))
					return "b INFO"
				},
				func(t *testing.T, dir string) string {
					must(t, os.WriteFile(dir+"/conf/..2/w.yaml", content("c"), 0o600))
					return "c INFO"
				},
				func(t *testing.T, dir string) string {
					must(t, os.WriteFile(dir+"/conf/x.toml", []byte("log.level = \"warn\"\n"), 0o600))
					return "c WARN"
				},
				func(t *testing.T, dir string) string {
					must(t, os.Remove(dir+"/conf/x.toml"))
					return "c INFO"
				},
			},
		},
		{
			name: "a link high up the path, then the directory itself, moves",
			make: func(t *testing.T, dir string) string {
				must(t, os.MkdirAll(dir+"/v1/conf", 0o755), os.MkdirAll(dir+"/v2/conf", 0o755), os.Symlink("v1", dir+"/current"),
					os.WriteFile(dir+"/v1/conf/w.yaml", content("a"), 0o600), os.WriteFile(dir+"/v2/conf/w.yaml", content("b"), 0o600))
				return dir + "/current/conf/w.yaml"
			},
			steps: []func(t *testing.T, dir string) string{
				func(t *testing.T, dir string) string {
					must(t, os.Symlink("v2", dir+"/next"), os.Rename(dir+"/next", dir+"/current"))
					return "b INFO"
				},
				func(t *testing.T, dir string) string {
					must(t, os.Rename(dir+"/v2/conf", dir+"/v2/old"))
					return "error"
				},
				func(t *testing.T, dir string) string {
					must(t, os.MkdirAll(dir+"/v2/conf", 0o755), os.WriteFile(dir+"/v2/conf/w.yaml", content("c"), 0o600))
					return "c INFO"
				},
			},
		},
		{
			name: "default places that come into being",
			make: func(*testing.T, string) string { return "" },
			steps: []func(t *testing.T, dir string) string{
				func(t *testing.T, dir string) string {
					must(t, os.MkdirAll(dir+"/etc/conf.d", 0o755))
					return ""
				},
				func(t *testing.T, dir string) string {
					must(t, os.WriteFile(dir+"/etc/conf.d/w.yaml", content("a"), 0o600))
					return "a INFO"
				},
				func(t *testing.T, dir string) string {
					must(t, os.WriteFile(dir+"/etc/weft.hcl", []byte("log { level = \"debug\" }"), 0o600))
					return "a DEBUG"
				},
				func(t *testing.T, dir string) string {
					must(t, os.WriteFile(dir+"/resolv.conf", []byte("nameserver 192.0.2.1\n"), 0o600))
					return "a DEBUG"
				},
				func(t *testing.T, dir string) string {
					must(t, os.WriteFile(dir+"/resolv.conf", []byte("# same\nnameserver 192.0.2.1\n"), 0o600))
					return ""
				},
				func(t *testing.T, dir string) string {
					must(t, os.WriteFile(dir+"/etc/conf.d/y.yaml", []byte("dns: {upstreams: [192.0.2.9]}"), 0o600))
					return "a DEBUG"
				},
				func(t *testing.T, dir string) string {
					must(t, os.WriteFile(dir+"/resolv.conf", []byte("nameserver 192.0.2.2\n"), 0o600))
					return ""
				},
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			o := options(dir)
			o.Path, o.etc = tt.make(t, dir), filepath.Join(dir, "etc")
			calls := watched(t, o, mustLoad(t, o))
			for i, step := range tt.steps {
				if want := step(t, dir); want != "" {
					expect(t, calls, want)
				}
				silent(t, calls)
				if t.Failed() {
					t.Fatalf("at step %d", i+1)
				}
			}
		})
	}
}

// TestWatchMissedChange: what happened between Load and Watch is reported.
func TestWatchMissedChange(t *testing.T) {
	dir := write(t, map[string]string{"weft.yaml": "consul: {prefix: a}\n"})
	o := options(dir)
	l := mustLoad(t, o)
	must(t, os.WriteFile(dir+"/weft.yaml", content("b"), 0o600))
	calls := watched(t, o, l)
	expect(t, calls, "b INFO")
	silent(t, calls)
}

// TestWatchNoise: events that never end do not keep a change from being seen.
func TestWatchNoise(t *testing.T) {
	dir := write(t, map[string]string{"weft.yaml": "consul: {prefix: a}\n"})
	o := options(dir)
	calls := watched(t, o, mustLoad(t, o))
	stop := time.After(20 * time.Second)
	must(t, os.WriteFile(dir+"/weft.yaml", content("b"), 0o600))
	for {
		select {
		case got := <-calls:
			diff(t, "b INFO", got)
			return
		case <-stop:
			t.Fatal("the change was not seen")
		case <-time.After(quiet / 5):
			must(t, os.WriteFile(dir+"/noise.log", []byte(time.Now().String()), 0o600))
		}
	}
}

// TestRewatchIsQuiet: watching anew makes no event, or Watch would never rest.
func TestRewatchIsQuiet(t *testing.T) {
	dir := write(t, map[string]string{"weft.yaml": "consul: {prefix: a}\n"})
	watcher, err := fsnotify.NewWatcher()
	must(t, err)
	defer func() { must(t, watcher.Close()) }()
	for range 3 {
		must(t, rewatch(watcher, options(dir)))
		_ = options(dir).fingerprint()
	}
	select {
	case e := <-watcher.Events:
		t.Errorf("event %v", e)
	case <-time.After(2 * quiet):
	}
	diff(t, []string{dir}, watcher.WatchList())
}
