package main

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/pkg/api"
	"weft/pkg/apiserver/apiservertest"
)

// A session against an agent: every step's code and output.
func TestCommands(t *testing.T) {
	b := &apiservertest.Backend{Known: []api.Node{
		{Name: "n1", Datacenter: "dc1", VTEP: netip.MustParseAddr("100.64.0.1"), Underlay: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
			UnderlayMTU: 1500, Backend: "kernel", Version: "1", Self: true, Identity: "abc", WireGuard: []string{"def"}},
		{Name: "n2", Left: true},
		{Name: "n3", Problem: "its signature is wrong"},
	}}
	socket := apiservertest.Serve(t, b)
	for _, tt := range []struct {
		line string
		code int
		want []string // parts of the output, stdout on success and stderr else
	}{
		{"network ls", 0, []string{"NAME  ID  VNI"}},
		{"network ls -o json", 0, []string{"[]\n"}},
		{"network create net --encrypted --subnet 10.7.0.0/24 --label a=b,c --label d=", 0, []string{"created network net: 10.7.0.0/24, gateway 10.7.0.1, encrypted, mtu 1450\n"}},
		{"network create net", 1, []string{"weft: network net exists\n"}},
		{"network create bad --subnet x", 1, []string{`weft: subnet "x" is not a prefix`}},
		{"network ls", 0, []string{"net   000000000001  8388608  10.7.0.0/24  encrypted  1450"}},
		{"network inspect net", 0, []string{"label      a=b,c\n", "label      d=\n", "endpoints  0 on 0 nodes\n"}},
		{"network inspect net -o json", 0, []string{`"endpoints": []`}},
		{"network inspect no", 1, []string{"weft: no network \"no\"\n"}},
		{"attach net --netns /run/netns/x --id id-1 --name web-1 --service web --service api", 0, []string{"id       id-1\n", "address  10.7.0.2/24\n", "dns      10.7.0.1\n"}},
		{"attach net --pid 1 -o json", 0, []string{`"address": "10.7.0.3/24"`, `"gateway": "10.7.0.1"`, `"mtu": 1450`}},
		{"attach no --pid 1", 1, []string{"weft: no network \"no\": see weft network ls\n"}},
		{"endpoint ls", 0, []string{"web-1", "web,api", "10.7.0.3"}},
		{"attach net --pid 1 --port 8080:80", 2, []string{"use name=http,port=8080,proto=tcp"}},
		{"attach net --pid 1 --id id-3 --name db-1 --service db --port name=pg,port=5432 --alias store", 0, []string{"id       id-3\n"}},
		{"service ls", 0, []string{"SERVICE  NETWORK  INSTANCES  ANSWERED  NODES\n", "web      net      1          1         1\n"}},
		{"service ls --network other -o json", 0, []string{"[]\n"}},
		{"service inspect db", 0, []string{"answered  1 of 1\n", "pg=5432/tcp", "no check"}},
		{"service inspect db --network net -o json", 0, []string{`"answered": 1`, `"name": "pg"`}},
		{"service inspect nope", 1, []string{"weft: no service is named \"nope\": see weft service ls\n"}},
		{"service inspect db --network other", 1, []string{"weft: no service \"db\" on network \"other\"\n"}},
		{"dns query web --network net", 0, []string{"answer    NOERROR, from records\n", "web. 5 IN A 10.7.0.2\n", "ANSWERED"}},
		{"dns query nope --network net --type SRV -o json", 0, []string{`"rcode": "NXDOMAIN"`, `"answer": []`}},
		{"drain db-1 --keep", 0, nil},
		{"drain db-1", 0, nil},
		{"drain db-1", 1, []string{"weft: no endpoint \"db-1\"\n"}},
		{"endpoint ls --network other -o json", 0, []string{"[]\n"}},
		{"endpoint inspect web-1", 0, []string{"services  web,api\n", "netns     /run/netns/x\n"}},
		{"network inspect net", 0, []string{"ENDPOINT", "web-1", "02:00:00:00:00:01"}},
		{"network rm net", 1, []string{"weft: network net has endpoints: web-1"}},
		{"leave", 1, []string{"weft: 2 endpoints exist here: detach them or use --force\n"}},
		{"detach web-1 --drain", 0, nil},
		{"detach web-1", 1, []string{"weft: no endpoint \"web-1\"\n"}},
		{"detach 000000000002", 0, nil},
		{"network rm net", 0, nil},
		{"node ls", 0, []string{"this node", "left", "refused: its signature is wrong"}},
		{"node inspect n1", 0, []string{"underlay    192.0.2.1, mtu 1500\n", "wireguard   def\n"}},
		{"node rm n9", 1, []string{"weft: no node \"n9\"\n"}},
		{"plan", 0, []string{"want\nhave\ndiff\n"}},
		{"leave --purge", 0, []string{"left the cluster\n"}},
	} {
		t.Run(tt.line, func(t *testing.T) {
			code, out, errs := weft(t, socket, strings.Fields(tt.line)...)
			got := out
			if code != 0 {
				got = errs
				if strings.Count(errs, "\n") != 1 || out != "" {
					t.Errorf("want one line on stderr and nothing on stdout, got %q and %q", errs, out)
				}
			} else if errs != "" {
				t.Errorf("stderr: %s", errs)
			}
			if code != tt.code {
				t.Errorf("exit %d, want %d", code, tt.code)
			}
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("output has no %q:\n%s", want, got)
				}
			}
		})
	}
}

func TestNoAgentIsOneLine(t *testing.T) {
	for _, line := range []string{"status", "network ls", "detach x", "attach net --pid 1"} {
		code, out, errs := weft(t, "/nonexistent/s", strings.Fields(line)...)
		want := "weft: the weft agent does not answer on /nonexistent/s: start it with `systemctl start weft` or `weft agent --dev`\n"
		if code != 1 || out != "" || errs != want {
			t.Errorf("%s: exit %d, %q, %q", line, code, out, errs)
		}
	}
}

func TestInterruptedIsNotAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := &apiservertest.Backend{Hook: func(ctx context.Context, _ string) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}}
	t.Setenv("WEFT_SOCKET", apiservertest.Serve(t, b))
	var errs strings.Builder
	a := &app{stdin: strings.NewReader(""), stdout: &errs, stderr: &errs}
	if code := a.main(ctx, []string{"status"}); code != 1 || errs.String() != "weft: interrupted\n" {
		t.Errorf("exit %d, %q", code, errs.String())
	}
}

func exampleStatus() api.Status {
	return api.Status{
		Node: "n1", Datacenter: "dc1", Version: "0.1.0", Cluster: "3f2a90c1", Backend: "kernel",
		VTEP: netip.MustParseAddr("100.64.0.1"), Underlay: netip.MustParseAddr("192.0.2.1"),
		Consul: api.ConsulStatus{Address: "127.0.0.1:8500", OK: true},
		Peers: []api.PeerStatus{
			{Node: "n2", VTEP: netip.MustParseAddr("100.64.0.2"), Endpoint: "192.0.2.2:51820", HandshakeAgeSeconds: 12.7, Up: true, RxBytes: 1023, TxBytes: 5 << 20},
			{Node: "n3", VTEP: netip.MustParseAddr("100.64.0.3"), HandshakeAgeSeconds: -1, TxBytes: 148},
		},
		Networks: []api.NetworkStatus{
			{Name: "my-app", VNI: 8388608, Encrypted: true, MTU: 1370, Local: 2, Remote: 3, State: "up"},
			{Name: "db", VNI: 8388609, Internal: true, MTU: 1450, State: "error", Error: "no fence"},
		},
		Reconcile: api.ReconcileStatus{Passes: 12, Applied: 40, Failed: 1},
		Drops:     map[string]uint64{"fence_host": 7, "spoof": 0},
	}
}

func TestStatus(t *testing.T) {
	bad := exampleStatus()
	bad.Consul = api.ConsulStatus{Address: "127.0.0.1:8500", Error: "connection refused"}
	bad.Reconcile.Frozen = "Consul does not answer"
	bad.Reconcile.LastChange = time.Now().Add(-3 * time.Minute)
	bad.Problems = []api.Problem{{Subject: "peer n3", Message: "no handshake yet: is udp 51820 open?"}}
	many := exampleStatus()
	many.Peers, many.Networks = many.Peers[:1], many.Networks[:1]
	for len(many.Peers) < 30 {
		many.Peers = append(many.Peers, many.Peers[0])
	}
	for name, st := range map[string]api.Status{"good": exampleStatus(), "bad": bad, "many": many, "fresh": {Node: "n1", Datacenter: "dc1", Version: "dev", Backend: "engine"}} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := weft(t, apiservertest.Serve(t, &apiservertest.Backend{Self: st}), "status")
			if code != 0 || errs != "" {
				t.Errorf("exit %d, %s", code, errs)
			}
			if n := strings.Count(out, "\n"); n > 40 {
				t.Errorf("%d lines are no screen", n)
			}
			file := filepath.Join("testdata", "status-"+name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), out); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusCheck(t *testing.T) {
	good := exampleStatus()
	good.Networks = good.Networks[:1]
	frozen := good
	frozen.Reconcile.Frozen = "the world shrank"
	problem := good
	problem.Problems = []api.Problem{{Subject: "x", Message: "y"}}
	noConsul := good
	noConsul.Consul.OK = false
	for _, tt := range []struct {
		name string
		st   api.Status
		code int
	}{{"good, a peer is down", good, 0}, {"frozen", frozen, 1}, {"problem", problem, 1}, {"no consul", noConsul, 1}, {"network in error", exampleStatus(), 1}} {
		t.Run(tt.name, func(t *testing.T) {
			socket := apiservertest.Serve(t, &apiservertest.Backend{Self: tt.st})
			if code, out, errs := weft(t, socket, "status", "--check", "-o", "json"); code != tt.code || !json.Valid([]byte(out)) {
				t.Errorf("exit %d, want %d: %s", code, tt.code, errs)
			}
			if code, _, _ := weft(t, socket, "status"); code != 0 {
				t.Errorf("without --check: exit %d", code)
			}
		})
	}
}

func TestCompletion(t *testing.T) {
	b := &apiservertest.Backend{Known: []api.Node{{Name: "n1", Datacenter: "dc1"}}}
	socket := apiservertest.Serve(t, b)
	for _, line := range []string{"network create net --encrypted", "attach net --netns /x --name web-1"} {
		if code, _, errs := weft(t, socket, strings.Fields(line)...); code != 0 {
			t.Fatalf("%s: %s", line, errs)
		}
	}
	for _, tt := range []struct{ line, want string }{
		{"network inspect", "net\tencrypted"}, {"network rm", "net\t"}, {"run", "net\t"}, {"attach", "net\t"},
		{"detach", "web-1\tnet 10.0.0.2"}, {"exec", "web-1\t"}, {"endpoint inspect", "web-1\tnet on n1"},
		{"node inspect", "n1\tdc1"}, {"endpoint ls --network", "net\t"}, {"network ls -o", "json"},
		{"completion", "fish"}, {"", "network\tCreate"},
	} {
		args := append([]string{"__complete"}, strings.Fields(tt.line)...)
		code, out, _ := weft(t, socket, append(args, "")...)
		if code != 0 || !strings.Contains(out, tt.want) {
			t.Errorf("%s <Tab>: exit %d, no %q:\n%s", tt.line, code, tt.want, out)
		}
		code, _, _ = weft(t, "/nonexistent", append(args, "")...)
		if code != 0 {
			t.Errorf("%s <Tab> without an agent: exit %d", tt.line, code)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, out, errs := weft(t, socket, "completion", shell); code != 0 || len(out) < 1000 {
			t.Errorf("completion %s: exit %d, %d bytes, %s", shell, code, len(out), errs)
		}
	}
}
