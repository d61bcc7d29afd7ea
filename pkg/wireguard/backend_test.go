package wireguard

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/netns/netnstest"
)

// transit makes the transit namespace for the test.
func transit(t *testing.T) {
	t.Helper()
	netnstest.Need(t)
	if err := netns.Create(kstate.Transit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(kstate.Transit); err != nil {
			t.Error(err)
		}
	})
}

// testEngine is a backend with a device weftwg0, which the test's end removes.
func testEngine(t *testing.T) (*engineBackend, string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "engine.log")
	e := Engine(EngineConfig{LogFile: log}).(*engineBackend)
	t.Cleanup(func() {
		if err := e.Delete(context.Background(), "weftwg0"); err != nil {
			t.Error(err)
		}
		for end := time.Now().Add(5 * time.Second); len(e.children.pids) > 0; time.Sleep(10 * time.Millisecond) {
			if e.children.reap(); time.Now().After(end) {
				t.Fatalf("engines still run: %v", e.children.pids)
			}
		}
	})
	return e, log
}

func mustCreate(t *testing.T, b Backend) {
	t.Helper()
	if err := b.Create(t.Context(), "weftwg0", 1420); err != nil {
		t.Fatal(err)
	}
}

func TestProbe(t *testing.T) {
	netnstest.Need(t)
	kernelErr := probeKernel(t.Context())
	if kernelErr != nil && !errors.Is(kernelErr, errors.ErrUnsupported) {
		t.Fatal(kernelErr)
	}
	auto := EngineName
	if kernelErr == nil {
		auto = KernelName
	}
	for _, tt := range []struct {
		mode, want string
		err        error
	}{
		{"auto", auto, nil},
		{"engine", EngineName, nil},
		{"kernel", KernelName, kernelErr},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			b, err := Probe(t.Context(), tt.mode, EngineConfig{})
			if tt.err != nil {
				if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "wireguard.backend") {
					t.Errorf("err = %v", err)
				}
				return
			}
			if err != nil || b.Name() != tt.want {
				t.Errorf("backend %v, err %v, want %s", b, err, tt.want)
			}
		})
	}
	if b, err := Probe(t.Context(), "fast", EngineConfig{}); err == nil {
		t.Errorf("unknown mode gives %v", b)
	}
	if names, err := netns.Names(); err != nil || len(names) != 0 {
		t.Errorf("left behind: %v %v", names, err)
	}
	if err := probeTUN(filepath.Join(t.TempDir(), "tun")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("no TUN device: %v", err)
	}
}

func TestCreate(t *testing.T) {
	transit(t)
	e, log := testEngine(t)
	mustCreate(t, e)
	l, err := findLink("weftwg0")
	if err != nil {
		t.Fatal(err)
	}
	if a := l.Attrs(); a.MTU != 1420 || a.Flags&net.FlagUp != 0 {
		t.Errorf("mtu %d flags %v, want 1420 and down", a.MTU, a.Flags)
	}
	if info, err := os.Stat(socketPath("weftwg0")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", info.Mode(), err)
	}
	if info, err := os.Stat(log); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("log: %v %v", info.Mode(), err)
	}
	if err := e.Create(t.Context(), "weftwg0", 1380); err != nil {
		t.Fatal(err)
	}
	if after, err := findLink("weftwg0"); err != nil || after.Attrs().MTU != 1380 || after.Attrs().Index != l.Attrs().Index {
		t.Errorf("adopted with another mtu: %+v %v", after, err)
	}
	if len(e.children.pids) != 1 {
		t.Errorf("engines started: %v", e.children.pids)
	}
}

// TestEngineKilled: the link goes with the engine, and the socket it could not remove is no obstacle.
func TestEngineKilled(t *testing.T) {
	transit(t)
	e, _ := testEngine(t)
	for _, tt := range []struct {
		name       string
		signal     unix.Signal
		leftSocket bool
	}{{"SIGKILL", unix.SIGKILL, true}, {"SIGTERM", unix.SIGTERM, false}} {
		t.Run(tt.name, func(t *testing.T) {
			mustCreate(t, e)
			for pid := range e.children.pids {
				if err := e.children.kill(pid, unix.SIGHUP); err != nil { // ignored
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
				if ended, how := e.children.ended(pid); ended {
					t.Fatalf("SIGHUP ended it: %s", how)
				}
				if err := e.children.kill(pid, tt.signal); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, 5*time.Second, "link goes", func() bool {
				_, err := findLink("weftwg0")
				return errors.Is(err, os.ErrNotExist)
			})
			eventually(t, 5*time.Second, "engine ends", func() bool {
				e.children.reap()
				return len(e.children.pids) == 0
			})
			if _, err := os.Stat(socketPath("weftwg0")); (err == nil) != tt.leftSocket {
				t.Errorf("socket: %v", err)
			}
		})
	}
	mustCreate(t, e)
}

func TestCreateRefused(t *testing.T) {
	transit(t)
	inTransitAdd := func(t *testing.T, l netlink.Link) {
		if err := inTransit(func(h *netlink.Handle) error { return h.LinkAdd(l) }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := deleteLink("weftwg0"); err != nil {
				t.Error(err)
			}
		})
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "weftwg0"
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T)
		is      error
		says    string
	}{
		{"name taken by a bridge", func(t *testing.T) { inTransitAdd(t, &netlink.Bridge{LinkAttrs: attrs}) },
			os.ErrExist, "bridge link has the name"},
		{"name taken by a TUN", func(t *testing.T) {
			persistentTUN(t)
		}, os.ErrNotExist, "engine is not running"},
		{"engine refuses", func(t *testing.T) { // its lock is held: by another one, elsewhere
			if err := os.MkdirAll("/run/weft", 0o755); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile("/run/weft/engine-weftwg0.lock", os.O_CREATE|os.O_RDWR, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
				t.Fatal(err)
			}
		}, nil, "another engine runs this device"},
		{"no namespace", func(t *testing.T) {
			if err := netns.Delete(kstate.Transit); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := netns.Create(kstate.Transit); err != nil {
					t.Fatal(err)
				}
			})
		}, nil, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, _ := testEngine(t)
			tt.prepare(t)
			err := e.Create(t.Context(), "weftwg0", 1420)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("err = %v, want one that says %q", err, tt.says)
			}
		})
	}
}

// persistentTUN leaves a TUN that no process holds.
func persistentTUN(t *testing.T) {
	t.Helper()
	err := netns.Do(kstate.Transit, func() error {
		fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		ifr, err := unix.NewIfreq("weftwg0")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			return err
		}
		return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPortInUse: the port another program has is a clear error, and is taken when it is free.
func TestPortInUse(t *testing.T) {
	transit(t)
	e, _ := testEngine(t)
	mustCreate(t, e)
	c, err := NewClient()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	taken, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(taken.LocalAddr().(*net.UDPAddr).Port)
	k := mustPrivate(t)
	d := kstate.WGDevice{NS: kstate.Transit, Name: "weftwg0", PublicKey: k.Public(), Port: port}
	if err := c.SetDevice(d, k); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("port in use: %v", err)
	}
	taken.Close()
	if err := c.SetDevice(d, k); err != nil {
		t.Errorf("port free again: %v", err)
	}
	if err := c.SetDevice(d, mustPrivate(t)); err == nil {
		t.Error("a key that is not the device's was taken")
	}
	for name, err := range map[string]error{
		"SetDevice": c.SetDevice(kstate.WGDevice{Name: "weftwg1", PublicKey: k.Public()}, k),
		"SetPeer":   c.SetPeer(kstate.WGPeer{Device: "weftwg1", PublicKey: key(1)}, nil),
		"Initiate":  c.Initiate("weftwg1"),
	} {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s of an absent device: %v", name, err)
		}
	}
	if err := c.SetPeer(kstate.WGPeer{Device: "weftwg0", PublicKey: key(1), Preshared: "00000000"}, nil); err == nil {
		t.Error("a peer was set without its preshared key")
	}
	if devices, peers, _, err := c.Observe(time.Now()); err != nil || len(devices) != 1 || len(peers) != 0 || devices[0] != d {
		t.Errorf("observed %v %v %v", devices, peers, err)
	}
}
