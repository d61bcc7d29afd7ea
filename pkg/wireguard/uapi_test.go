package wireguard

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/keys"
)

func key(b byte) (k keys.PublicKey) {
	for i := range k {
		k[i] = b
	}
	return k
}

var equal = cmp.Options{
	cmp.AllowUnexported(status{}, peerStatus{}),
	cmp.Comparer(func(a, b keys.PresharedKey) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func mustPSK(t testing.TB) keys.PresharedKey {
	t.Helper()
	k, err := keys.NewPresharedKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustPrivate(t testing.TB) keys.PrivateKey {
	t.Helper()
	k, err := keys.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func hexOf(b [32]byte) string { return fmt.Sprintf("%x", b[:]) }

func TestParseStatus(t *testing.T) {
	private, psk := mustPrivate(t), mustPSK(t)
	tests := []struct {
		name, answer string
		want         status
		err          error
	}{
		{"nothing set", "errno=0\n\n", status{}, nil},
		{"zero key", "private_key=" + strings.Repeat("0", 64) + "\nerrno=0\n\n", status{}, nil},
		{"full", "private_key=" + hexOf(private.Reveal()) + "\nlisten_port=51820\nfwmark=3\n" +
			"public_key=" + hexOf(key(7)) + "\npreshared_key=" + hexOf(psk.Reveal()) +
			"\nprotocol_version=1\nendpoint=192.0.2.1:51821\nlast_handshake_time_sec=1700000000\n" +
			"last_handshake_time_nsec=5\ntx_bytes=18446744073709551615\nrx_bytes=2\n" +
			"persistent_keepalive_interval=25\nallowed_ip=100.64.0.2/32\nallowed_ip=2001:db8::/64\n" +
			"public_key=" + hexOf(key(8)) + "\npreshared_key=" + strings.Repeat("0", 64) +
			"\nendpoint=[2001:db8::1]:1\nlast_handshake_time_sec=0\nlast_handshake_time_nsec=0\nnew_thing=1\nerrno=0\n\n",
			status{public: private.Public(), port: 51820, peers: []peerStatus{
				{key: key(7), endpoint: netip.MustParseAddrPort("192.0.2.1:51821"), keepalive: 25, psk: psk,
					allowed:   []netip.Prefix{netip.MustParsePrefix("100.64.0.2/32"), netip.MustParsePrefix("2001:db8::/64")},
					handshake: time.Unix(1700000000, 5), rx: 2, tx: 1<<64 - 1},
				{key: key(8), endpoint: netip.MustParseAddrPort("[2001:db8::1]:1")},
			}}, nil},
		{"mapped endpoint", "public_key=" + hexOf(key(7)) + "\nendpoint=[::ffff:192.0.2.1]:5\nerrno=0\n\n",
			status{peers: []peerStatus{{key: key(7), endpoint: netip.MustParseAddrPort("192.0.2.1:5")}}}, nil},
		{"port in use", "errno=-98\n\n", status{}, syscall.EADDRINUSE},
		{"positive errno", "errno=22\n\n", status{}, syscall.EINVAL},
		{"cut short", "listen_port=5\n", status{}, io.ErrUnexpectedEOF},
		{"no result", "listen_port=5\n\n", status{}, errAnswer},
		{"after the result", "errno=0\nlisten_port=5\n\n", status{}, errAnswer},
		{"no equals sign", "private_key\nerrno=0\n\n", status{}, errAnswer},
		{"short key", "public_key=00\nerrno=0\n\n", status{}, errAnswer},
		{"port too large", "listen_port=65536\nerrno=0\n\n", status{}, errAnswer},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseStatus(strings.NewReader(tt.answer))
			if !errors.Is(err, tt.err) {
				t.Fatalf("err = %v, want %v", err, tt.err)
			}
			if d := cmp.Diff(tt.want, got, equal); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add("listen_port=51820\npublic_key=" + strings.Repeat("07", 32) + "\nallowed_ip=10.0.0.0/8\nerrno=0\n\n")
	f.Add("private_key=" + strings.Repeat("01", 32) + "\nlast_handshake_time_sec=9\nerrno=-22\n\n")
	f.Fuzz(func(t *testing.T, answer string) {
		s, err := parseStatus(strings.NewReader(answer))
		if err != nil {
			if d := cmp.Diff(status{}, s, equal); d != "" {
				t.Errorf("an error comes with a value (-want +got)\n%s", d)
			}
			return
		}
		for _, p := range s.peers { // what was read can be said again
			back, err := splitPrefixes(joinPrefixes(p.allowed))
			if err != nil || len(back) != len(p.allowed) {
				t.Errorf("allowed IPs %v come back as %v, %v", p.allowed, back, err)
			}
		}
	})
}

func TestEncodePatch(t *testing.T) {
	private, psk, port, k := mustPrivate(t), mustPSK(t), uint16(51820), 25
	got := encodePatch(patch{key: &private, port: &port, peers: []peerPatch{
		{key: key(1), psk: &psk, endpoint: netip.MustParseAddrPort("[2001:db8::1]:5"), keepalive: &k, setAllowed: true,
			allowed: []netip.Prefix{netip.MustParsePrefix("100.64.0.1/32")}},
		{key: key(2), setAllowed: true, keepalive: &k, quiet: true},
		{key: key(3), psk: &keys.PresharedKey{}},
		{key: key(4), remove: true},
	}})
	want := "set=1\nprivate_key=" + hexOf(private.Reveal()) + "\nlisten_port=51820\n" +
		"public_key=" + hexOf(key(1)) + "\npreshared_key=" + hexOf(psk.Reveal()) + "\nendpoint=[2001:db8::1]:5\n" +
		"replace_allowed_ips=true\nallowed_ip=100.64.0.1/32\npersistent_keepalive_interval=25\n" +
		"public_key=" + hexOf(key(2)) + "\nreplace_allowed_ips=true\n" +
		"persistent_keepalive_interval=25\npersistent_keepalive_interval=25\n" +
		"public_key=" + hexOf(key(3)) + "\npreshared_key=" + strings.Repeat("0", 64) + "\n" +
		"public_key=" + hexOf(key(4)) + "\nupdate_only=true\nremove=true\n\n"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestUAPIErrors(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead.sock")
	l, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	mute := filepath.Join(dir, "mute.sock")
	if l, err = net.Listen("unix", mute); err != nil { // accepts (the kernel does) and never answers
		t.Fatal(err)
	}
	defer l.Close()
	tests := []struct {
		name, path string
		want       error
	}{
		{"no socket", filepath.Join(dir, "none.sock"), os.ErrNotExist},
		{"nobody listens", dead, os.ErrNotExist},
		{"no answer", mute, os.ErrDeadlineExceeded},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := uapi{tt.path, 50 * time.Millisecond}
			if _, err := u.get(); !errors.Is(err, tt.want) {
				t.Errorf("get: %v, want %v", err, tt.want)
			}
			if err := u.set(patch{}); !errors.Is(err, tt.want) {
				t.Errorf("set: %v, want %v", err, tt.want)
			}
		})
	}
}
