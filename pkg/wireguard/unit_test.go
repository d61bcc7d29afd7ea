package wireguard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weft/keys"
)

func TestTranslate(t *testing.T) {
	tests := []struct {
		name string
		in   error
		want error
	}{
		{"no such link", netlink.LinkNotFoundError{}, os.ErrNotExist},
		{"no such device", unix.ENODEV, os.ErrNotExist},
		{"name taken", unix.EEXIST, os.ErrExist},
		{"no rights", unix.EPERM, os.ErrPermission},
		{"kernel without WireGuard", unix.EOPNOTSUPP, errors.ErrUnsupported},
		{"kernel without WireGuard, explained", fmt.Errorf("%w: Unknown device type", unix.EOPNOTSUPP), errors.ErrUnsupported},
		{"anything else stays", unix.ENOBUFS, unix.ENOBUFS},
		{"nil", nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := translate(tt.in)
			if !errors.Is(got, tt.want) || !errors.Is(got, tt.in) && !strings.Contains(tt.name, "link") {
				t.Errorf("translate(%v) = %v, want %v", tt.in, got, tt.want)
			}
		})
	}
}

func TestRetryDump(t *testing.T) {
	for _, tt := range []struct {
		name        string
		interrupted int
		ok          bool
	}{{"first", 0, true}, {"third", 2, true}, {"never", 100, false}} {
		t.Run(tt.name, func(t *testing.T) {
			calls := 0
			links, err := retryDump(func() ([]netlink.Link, error) {
				if calls++; calls <= tt.interrupted {
					return []netlink.Link{nil}, netlink.ErrDumpInterrupted
				}
				return []netlink.Link{nil, nil}, nil
			})
			if tt.ok != (err == nil) || tt.ok != (len(links) == 2) {
				t.Errorf("links %d, err %v", len(links), err)
			}
		})
	}
}

func TestInitiation(t *testing.T) {
	for _, tt := range []struct {
		name      string
		old, want int
		steps     []int
	}{
		{"new without keepalive", 0, 0, []int{1, 0}},
		{"new with keepalive", 0, 25, []int{25}},
		{"again with keepalive", 25, 25, []int{0, 25}},
		{"keepalive goes", 25, 0, []int{0, 1, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []int
			patches := initiation(peerPatch{key: key(1), setAllowed: true}, tt.old, tt.want)
			for i, p := range patches {
				if p.key != key(1) || p.setAllowed != (i == 0) {
					t.Errorf("patch %d: %+v", i, p)
				}
				got = append(got, *p.keepalive)
			}
			if d := cmp.Diff(tt.steps, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// TestWgctrlRoundTrip compares the kernel's codec with the engine's through the types of wgctrl.
func TestWgctrlRoundTrip(t *testing.T) {
	private, psk, port, k := mustPrivate(t), mustPSK(t), uint16(51820), 25
	p := patch{key: &private, port: &port, peers: []peerPatch{
		{key: key(1), psk: &psk, endpoint: netip.MustParseAddrPort("192.0.2.1:5"), keepalive: &k, setAllowed: true,
			allowed: []netip.Prefix{netip.MustParsePrefix("100.64.0.1/32"), netip.MustParsePrefix("2001:db8::/64")}},
		{key: key(4), remove: true},
	}}
	cfg := toConfig(p)
	if c := cfg.Peers[1]; !c.Remove || !c.UpdateOnly {
		t.Errorf("removal would add the peer first: %+v", c)
	}
	c := cfg.Peers[0]
	d := &wgtypes.Device{PrivateKey: *cfg.PrivateKey, PublicKey: cfg.PrivateKey.PublicKey(), ListenPort: *cfg.ListenPort,
		Peers: []wgtypes.Peer{{PublicKey: c.PublicKey, PresharedKey: *c.PresharedKey, AllowedIPs: c.AllowedIPs,
			Endpoint:                    &net.UDPAddr{IP: c.Endpoint.IP.To16(), Port: c.Endpoint.Port},
			PersistentKeepaliveInterval: *c.PersistentKeepaliveInterval, LastHandshakeTime: time.Unix(0, 0), TransmitBytes: 3}}}
	want := status{public: private.Public(), port: port, peers: []peerStatus{{key: key(1), endpoint: p.peers[0].endpoint,
		allowed: p.peers[0].allowed, keepalive: k, psk: psk, tx: 3}}}
	if d := cmp.Diff(want, fromDevice(d), equal); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if d := cmp.Diff(status{}, fromDevice(&wgtypes.Device{PublicKey: wgtypes.Key{1}}), equal); d != "" {
		t.Errorf("device without key (-want +got)\n%s", d)
	}
}

func TestYields(t *testing.T) {
	small, large := key(1), key(2)
	for _, tt := range []struct {
		name string
		ctl  control
		own  keys.PublicKey
		want keys.PublicKey
		keep int
		yes  bool
	}{
		{"smaller yields", uapi{}, small, large, 25, true},
		{"larger begins", uapi{}, large, small, 25, false},
		{"device without key", uapi{}, keys.PublicKey{}, large, 0, false},
		{"kernel yields", kernelControl{}, small, large, 0, true},
		{"kernel with keepalive cannot", kernelControl{}, small, large, 25, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := yields(tt.ctl, tt.own, peerItem(tt.want, tt.keep)); got != tt.yes {
				t.Errorf("yields = %v", got)
			}
		})
	}
}

func TestPokes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type call struct {
			ID      peerID
			Attempt int
			At      time.Duration
		}
		start := time.Now()
		var got []call
		p := newPokes(func(id peerID, attempt int) { got = append(got, call{id, attempt, time.Since(start)}) })
		a, b := peerID{"weftwg0", key(1)}, peerID{"weftwg0", key(2)}
		p.later(a)
		p.later(a)
		time.Sleep(yieldFor)
		synctest.Wait()
		if !p.waiting(a) || p.waiting(b) {
			t.Errorf("waiting: a %v, b %v", p.waiting(a), p.waiting(b))
		}
		time.Sleep(recoverAfter)
		synctest.Wait()
		p.later(b)
		time.Sleep(yieldFor + recoverAfter/2)
		p.later(b)
		if p.waiting(a) || !p.waiting(b) {
			t.Errorf("waiting: a %v, b %v", p.waiting(a), p.waiting(b))
		}
		time.Sleep(yieldFor)
		synctest.Wait()
		p.close()
		p.close()
		p.later(a)
		time.Sleep(time.Second)
		const t1 = yieldFor + recoverAfter
		want := []call{{a, 0, yieldFor}, {a, 1, t1}, {b, 0, t1 + yieldFor}, {b, 0, t1 + 2*yieldFor + recoverAfter/2}}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(peerID{})); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	})
}

func TestLastLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("old\nfirst\nlast\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path string
		from       int64
		want       string
	}{
		{"last", path, 4, ": last"},
		{"nothing since", path, 16, ""},
		{"started anew", path, 1000, ": last"},
		{"no log", "", 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := lastLine(tt.path, tt.from); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSpawnLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "engine.log")
	f, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("log: %v %v", info, err)
	}
	if err := os.Truncate(path, maxLog+1); err != nil {
		t.Fatal(err)
	}
	if f, err = openLog(path); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if logSize(path) != 0 || logSize(path+".old") != maxLog+1 {
		t.Errorf("sizes: %d, old %d", logSize(path), logSize(path+".old"))
	}
}

func TestChildren(t *testing.T) {
	for _, tt := range []struct{ name, script, how string }{
		{"exit", "exit 3", "exit status 3"},
		{"signal", "kill -9 $$", "killed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", tt.script}, &os.ProcAttr{})
			if err != nil {
				t.Fatal(err)
			}
			pid := p.Pid
			p.Release()
			var c children
			c.add(pid)
			ended, how := false, ""
			for i := 0; i < 500 && !ended; i++ {
				time.Sleep(10 * time.Millisecond)
				ended, how = c.ended(pid)
			}
			if !ended || how != tt.how {
				t.Errorf("ended %v %q, want %q", ended, how, tt.how)
			}
			c.reap()
			if len(c.pids) != 0 {
				t.Errorf("kept %v", c.pids)
			}
		})
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{"weftwg0": true, "weftwg1": true, "wg0": false, "": false,
		"weftwg/../x": false, "weftwg0123456789": false, "weftwg 0": false} {
		if got := checkName(name) == nil; got != ok {
			t.Errorf("checkName(%q) ok = %v", name, got)
		}
	}
}
