package consul_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/consul"
	"weft/pkg/overlay"
)

func TestNew(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  consul.Config
		want string // part of the error; empty: none
	}{
		{name: "zero"},
		{name: "host and port", cfg: consul.Config{Address: "consul.example.org:8500"}},
		{name: "IPv6", cfg: consul.Config{Address: "[::1]:8500"}},
		{name: "https with a path", cfg: consul.Config{Address: "https://consul.example.org:8501/consul"}},
		{name: "socket", cfg: consul.Config{Address: "unix:///run/consul.sock"}},
		{name: "nested prefix", cfg: consul.Config{Prefix: "teams/net/weft"}},
		{name: "no port", cfg: consul.Config{Address: "consul"}, want: `check address "consul"`},
		{name: "scheme", cfg: consul.Config{Address: "ftp://consul:1"}, want: `unknown scheme "ftp"`},
		{name: "relative socket", cfg: consul.Config{Address: "unix://run/consul.sock"}, want: "want unix:///absolute/path"},
		{name: "password in the address", cfg: consul.Config{Address: "http://u:p@consul:8500"}, want: "check address"},
		{name: "prefix with slash", cfg: consul.Config{Prefix: "/weft"}, want: `check prefix "/weft"`},
		{name: "half a certificate", cfg: consul.Config{TLS: consul.TLS{CertFile: "x"}}, want: "both its certificate and its key"},
		{name: "missing CA", cfg: consul.Config{TLS: consul.TLS{CAFile: "/does/not/exist"}}, want: "set up TLS to consul"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := consul.New(tc.cfg)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want one with %q", err, tc.want)
			}
		})
	}
}

// What is asked comes from the config alone: over a unix socket, with the token or without, whatever CONSUL_* says.
func TestRequest(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "192.0.2.1:1")
	t.Setenv("CONSUL_HTTP_TOKEN", "from the environment")
	t.Setenv("CONSUL_HTTP_SSL", "true")
	socket := filepath.Join(t.TempDir(), "consul.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, fmt.Sprintf("%s %q", r.URL, r.Header.Values("X-Consul-Token")))
		w.WriteHeader(http.StatusNotFound)
	})}
	go func() { _ = server.Serve(l) }()
	defer func() { _ = server.Close() }()
	for _, token := range []string{"", "secret"} {
		c := client(t, consul.Config{Address: "unix://" + socket, Token: token, Datacenter: "dc7", Prefix: "a/b"})
		_, err := c.Cluster(t.Context())
		wantErr(t, err, consul.ErrUnreadable)
	}
	want := []string{`/v1/kv/a/b/cluster?consistent=&dc=dc7 []`, `/v1/kv/a/b/cluster?consistent=&dc=dc7 ["secret"]`}
	if !slices.Equal(got, want) {
		t.Errorf("requests are %q, want %q", got, want)
	}
}

func TestConfigHidesItsToken(t *testing.T) {
	cfg := consul.Config{Address: "a:1", Token: "topsecret"}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("start", "consul", cfg)
	text := logged.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		text += fmt.Sprintf(verb, cfg) + fmt.Sprintf(verb, &cfg)
	}
	b, _ := json.Marshal(struct{ C consul.Config }{consul.Config{Token: "topsecret"}})
	if text += string(b); strings.Contains(text, "topsecret") || strings.Contains(text, fmt.Sprintf("%x", "topsecret")) {
		t.Errorf("the token shows in %s", text)
	}
}

func TestPaths(t *testing.T) {
	a := netip.MustParseAddr("10.0.1.2")
	for _, tc := range []struct{ got, want string }{
		{consul.NetworkPath("my-app"), "networks/my-app"},
		{consul.VNIPath(8388608), "vnis/8388608"},
		{consul.NodePath("n1"), "nodes/n1"},
		{consul.VTEPPath(a), "vteps/10.0.1.2"},
		{consul.LeasePath("my-app", a), "leases/my-app/10.0.1.2"},
		{consul.EndpointsPath("n1", "my-app"), "endpoints/n1/my-app"},
		{consul.RevPath("my-app", "n1"), "revs/my-app/n1"},
		{consul.NodeRevPath("n1"), "revs/nodes/n1"},
		{consul.RecallPath("my-app"), "recall/my-app"},
	} {
		if tc.got != tc.want {
			t.Errorf("path is %q, want %q", tc.got, tc.want)
		}
		if back := reparse(tc.got); back != tc.got {
			t.Errorf("%q parses as %q", tc.got, back)
		}
	}
	for _, odd := range []string{
		"", "networks", "networks/", "networks/a/b", "networks/a b", "networks/.", "/networks/a", "networks//a", "nodes/-x", "nodes/a\x00",
		"vnis/0", "vnis/08388608", "vnis/16777216", "vnis/+1", "vteps/010.0.0.1", "vteps/10.0.0.1/", "vteps/fe80::1%eth0", "vteps/FD00::1",
		"leases/net/10.0.0.1/x", "leases/10.0.0.1", "leases/a/b/10.0.0.1", "leases/net/::ffff:10.0.0.1x", "endpoints/n1", "endpoints/n1/a/b",
		"revs/x", "revs/nodes/", "revs/nodes/a/b", "recall/" + strings.Repeat("x", 129),
	} {
		if back := reparse(odd); back != "" {
			t.Errorf("odd path %q parses as %q", odd, back)
		}
	}
}

// reparse makes a path of what it parses as, "" when nothing takes it.
func reparse(path string) string {
	var out []string
	add := func(s string, err error) {
		if err == nil {
			out = append(out, s)
		}
	}
	net, err := consul.ParseNetworkPath(path)
	add(consul.NetworkPath(net), err)
	node, err := consul.ParseNodePath(path)
	add(consul.NodePath(node), err)
	node, err = consul.ParseNodeRevPath(path)
	add(consul.NodeRevPath(node), err)
	net, err = consul.ParseRecallPath(path)
	add(consul.RecallPath(net), err)
	node, net, err = consul.ParseEndpointsPath(path)
	add(consul.EndpointsPath(node, net), err)
	net, node, err = consul.ParseRevPath(path)
	add(consul.RevPath(net, node), err)
	vni, err := consul.ParseVNIPath(path)
	add(consul.VNIPath(vni), err)
	a, err := consul.ParseVTEPPath(path)
	add(consul.VTEPPath(a), err)
	net, a, err = consul.ParseLeasePath(path)
	add(consul.LeasePath(net, a), err)
	return strings.Join(out, " and ")
}

func FuzzPaths(f *testing.F) {
	f.Add("leases/my-app/10.0.1.2")
	f.Add("vnis/8388608")
	f.Add("revs/nodes/n1")
	f.Fuzz(func(t *testing.T, path string) {
		if back := reparse(path); back != "" && back != path {
			t.Errorf("%q parses as %q", path, back)
		}
	})
}

func FuzzLease(f *testing.F) {
	f.Add("leases/net/10.0.0.1", []byte(`{"node": "n1", "state": "used"}`))
	f.Add("leases/net/10.0.0.1", []byte(`{}`))
	f.Fuzz(func(t *testing.T, path string, value []byte) {
		l, err := consul.ParseLease(consul.Pair{Path: path, Value: value})
		if _, a, odd := consul.ParseLeasePath(path); odd == nil && l.Address != a || odd != nil && l.Address.IsValid() {
			t.Errorf("lease at %q has address %v", path, l.Address)
		}
		if err != nil && l.Address.IsValid() && l.State != overlay.LeaseReserved {
			t.Errorf("a bad value gives %+v", l)
		}
	})
}

func FuzzCluster(f *testing.F) {
	f.Add([]byte(`{"id": "0123456789ab", "format": 1}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		if c, err := consul.ParseCluster(value); err == nil && (len(c.ID) != 12 || c.Format != 1) {
			t.Errorf("accepted %+v", c)
		}
	})
}

func TestErrorText(t *testing.T) {
	e := &consul.Error{Op: "read", Key: "weft/nodes/n1", Kind: consul.ErrUnreadable, Said: "403 Permission denied", Hint: "the token needs x"}
	want := `read weft/nodes/n1: not readable: consul said "403 Permission denied" (the token needs x)`
	if e.Error() != want {
		t.Errorf("error is %q, want %q", e, want)
	}
	if !errors.Is(e, consul.ErrUnreadable) || !errors.Is(e, os.ErrPermission) || errors.Is(e, os.ErrNotExist) {
		t.Error("error is of the wrong kind")
	}
}
