package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"weft/pkg/netns"
	"weft/pkg/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// syncBuffer takes log lines from several goroutines.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start runs an engine in a namespace of its own until stop, and waits until it answers.
func start(t *testing.T) (cfg Config, log *syncBuffer, stop func() error) {
	t.Helper()
	netnstest.Need(t)
	const ns = "weft-t"
	if err := netns.Create(ns); err != nil {
		t.Fatal(err)
	}
	log = &syncBuffer{}
	cfg = Config{Device: "weftwg0", NetNS: ns, MTU: 1420, Log: slog.New(slog.NewTextHandler(log, nil))}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(socketPath(cfg.Device)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("socket after the end: %v", err)
		}
		if err := linkExists(ns, cfg.Device); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("link after the end: %v", err)
		}
		if err := netns.Delete(ns); err != nil {
			t.Error(err)
		}
	})
	answers(t)
	return cfg, log, stop
}

func linkExists(ns, name string) error {
	return netns.Do(ns, func() error {
		_, err := os.ReadFile("/proc/thread-self/net/dev_snmp6/" + name)
		return err
	})
}

// answers waits until the engine answers a get, and returns the answer.
func answers(t *testing.T) string {
	t.Helper()
	var last error
	for range 500 {
		text, err := ask("get=1\n\n")
		if err == nil {
			return text
		}
		last = err
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("engine does not answer: %v", last)
	return ""
}

func ask(request string) (string, error) {
	c, err := net.Dial("unix", socketPath("weftwg0"))
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		return "", err
	}
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

func TestRun(t *testing.T) {
	cfg, log, stop := start(t)
	if err := linkExists(cfg.NetNS, cfg.Device); err != nil {
		t.Errorf("link: %v", err)
	}
	if err := Run(t.Context(), cfg); !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "another engine") {
		t.Errorf("second engine: %v", err)
	}
	idle, err := net.Dial("unix", socketPath(cfg.Device)) // must not hold up the end
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "engine started") {
		t.Errorf("a quiet engine logs one line, not\n%s", got)
	}
}

// TestSocketRemoved: an engine whose socket was removed makes it anew and keeps what it knows.
func TestSocketRemoved(t *testing.T) {
	cfg, _, _ := start(t)
	if answer, err := ask("set=1\nfwmark=7\n\n"); err != nil || answer != "errno=0\n\n" {
		t.Fatalf("set: %q %v", answer, err)
	}
	if err := os.Remove(socketPath(cfg.Device)); err != nil {
		t.Fatal(err)
	}
	if answer := answers(t); !strings.Contains(answer, "fwmark=7\n") {
		t.Errorf("answer: %q", answer)
	}
}

// TestNoKeyInLog feeds the control socket keys where none belong.
func TestNoKeyInLog(t *testing.T) {
	_, log, _ := start(t)
	key := strings.Repeat("a1b2", 16)
	for _, request := range []string{
		"private_key=" + key + "\n", "set=1\n" + key + "\n\n", "set=1\nprivate_key=" + key + "zz\n\n",
		"set=1\nendpoint=" + key + "\n\n", "set=1\npublic_key=" + key + "\nendpoint=" + key + "\n\n",
		"set=1\npublic_key=" + key + "\n" + key + "=1\n\n",
	} {
		_, _ = ask(request)
	}
	if got := log.String(); strings.Contains(got, key[:20]) || !strings.Contains(got, "(redacted)") {
		t.Errorf("log:\n%s", got)
	}
}

func TestRunRefuses(t *testing.T) {
	netnstest.Need(t)
	log := slog.New(slog.DiscardHandler)
	for _, tt := range []struct {
		name string
		cfg  Config
		is   error
	}{
		{"no logger", Config{Device: "weftwg0", MTU: 1420}, nil},
		{"no device", Config{MTU: 1420, Log: log}, nil},
		{"path for a device", Config{Device: "../x", MTU: 1420, Log: log}, nil},
		{"long device", Config{Device: "weftwg0123456789", MTU: 1420, Log: log}, nil},
		{"small mtu", Config{Device: "weftwg0", MTU: 575, Log: log}, nil},
		{"large mtu", Config{Device: "weftwg0", MTU: 65536, Log: log}, nil},
		{"no namespace", Config{Device: "weftwg0", NetNS: "nowhere", MTU: 1420, Log: log}, os.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := Run(ctx, tt.cfg); err == nil || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "weft")
	first, err := lockDevice(dir, "weftwg0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDevice(dir, "weftwg0"); !errors.Is(err, os.ErrExist) {
		t.Errorf("second lock: %v", err)
	}
	other, err := lockDevice(dir, "weftwg1")
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	first.Close()
	again, err := lockDevice(dir, "weftwg0")
	if err != nil {
		t.Fatalf("after it was given back: %v", err)
	}
	again.Close()
}

func TestRedact(t *testing.T) {
	hex, b64 := strings.Repeat("a1", 32), strings.Repeat("Ab+/", 10)+"Abc="
	for _, tt := range []struct{ name, in, want string }{
		{"hexadecimal", "bad line private_key:" + hex, "bad line private_key:(redacted)"},
		{"base64", "x " + b64 + " y", "x (redacted) y"},
		{"most of one", hex[:40], "(redacted)"},
		{"short name of a peer", "peer(abcd…wxyz) - Failed to send handshake initiation: network is unreachable",
			"peer(abcd…wxyz) - Failed to send handshake initiation: network is unreachable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := redact(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRepeats(t *testing.T) {
	r := &repeats{last: map[string]time.Time{}}
	t0 := time.Unix(1000, 0)
	for i, tt := range []struct {
		text  string
		after time.Duration
		want  bool
	}{
		{"a", 0, true}, {"a", time.Second, false}, {"b", time.Second, true}, {"a", repeatAfter, true}, {"a", repeatAfter + 1, false},
	} {
		if got := r.allow(tt.text, t0.Add(tt.after)); got != tt.want {
			t.Errorf("%d: allow(%q) = %v", i, tt.text, got)
		}
	}
	for i := range 3 * maxRepeats {
		r.allow(fmt.Sprint(i), t0)
	}
	if len(r.last) > maxRepeats {
		t.Errorf("remembers %d texts", len(r.last))
	}
}

type failingTUN struct {
	tun.Device
	err error
}

func (f failingTUN) Read([][]byte, []int, int) (int, error) { return 1, f.err }

func TestReadErrors(t *testing.T) {
	for _, tt := range []struct {
		name     string
		in, want error
	}{
		{"none", nil, nil},
		{"closed", os.ErrClosed, os.ErrClosed},
		{"system call", &os.PathError{Op: "read", Path: tunPath, Err: syscall.EIO}, syscall.EIO},
		{"odd packet", errors.New("unsupported virtio GSO type: 9"), tun.ErrTooManySegments},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dev := &fixedTUN{Device: failingTUN{err: tt.in}, mtu: 1420}
			if _, err := dev.Read(nil, nil, 0); !errors.Is(err, tt.want) {
				t.Errorf("err = %v, want %v", err, tt.want)
			}
			if mtu, err := dev.MTU(); mtu != 1420 || err != nil {
				t.Errorf("mtu %d %v", mtu, err)
			}
		})
	}
}
