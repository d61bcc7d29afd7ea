package wireguard

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/keys"
	"weft/pkg/kstate"
	"weft/pkg/netns/netnstest"
)

// host is a simulated host with network, mount and process namespaces of its own.
type host struct {
	t       *testing.T
	backend string
	setup   SetupArgs
	key     keys.PrivateKey
	init    *exec.Cmd
	agent   *rpc.Client
	cmd     *exec.Cmd
}

// pair makes two hosts joined by a cable, with devices that do not know each other yet. The key of the first compares
// smaller when firstSmaller says so.
func pair(t *testing.T, backend string, firstSmaller bool) (a, b *host) {
	t.Helper()
	netnstest.Need(t)
	ka, kb := mustPrivate(t), mustPrivate(t)
	if pa, pb := ka.Public(), kb.Public(); (slices.Compare(pa[:], pb[:]) < 0) != firstSmaller {
		ka, kb = kb, ka
	}
	a = newHost(t, backend, ka, SetupArgs{"192.0.2.1", "100.64.0.1", "100.64.0.2"})
	b = newHost(t, backend, kb, SetupArgs{"192.0.2.2", "100.64.0.2", "100.64.0.1"})
	cable(t, a, b)
	for _, h := range []*host{a, b} {
		h.call("Setup", h.setup, nil)
		h.call("Create", None{}, nil)
		h.call("SetDevice", DeviceArgs{h.key.Reveal(), 51820}, nil)
		h.call("LinkUp", h.setup, nil)
	}
	return a, b
}

func newHost(t *testing.T, backend string, key keys.PrivateKey, setup SetupArgs) *host {
	t.Helper()
	h := &host{t: t, backend: backend, setup: setup, key: key, init: exec.Command("/proc/self/exe", "host")}
	h.init.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	h.init.Stderr, h.init.Env = os.Stderr, partEnv()
	in, err := h.init.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.init.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.init.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if h.agent != nil {
			h.agent.Close()
			_ = h.cmd.Wait()
		}
		in.Close()
		_ = h.init.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("host did not start: %q %v", line, err)
	}
	h.startAgent()
	return h
}

// enter is a command that plays one of the binary's parts inside the host.
func (h *host) enter(args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(h.init.Process.Pid), "-m", "-n", "-p", "--", exe}, args...)...)
	cmd.Stderr, cmd.Env = os.Stderr, partEnv()
	return cmd
}

// partEnv saves the second that a race-detecting process sleeps at its end.
func partEnv() []string { return append(os.Environ(), "GORACE=atexit_sleep_ms=0") }

func (h *host) startAgent() {
	h.t.Helper()
	h.cmd = h.enter("agent", h.backend)
	in, err := h.cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.agent = jsonrpc.NewClient(struct {
		io.Reader
		io.WriteCloser
	}{out, in})
}

func (h *host) try(method string, in, out any) error {
	if out == nil {
		out = &None{}
	}
	return h.agent.Call("Agent."+method, in, out)
}

func (h *host) call(method string, in, out any) {
	h.t.Helper()
	if err := h.try(method, in, out); err != nil {
		h.t.Fatalf("%s: %v", method, err)
	}
}

func (h *host) observe() (o Observation) {
	h.t.Helper()
	h.call("Observe", None{}, &o)
	return o
}

// knows is the peer item that host h has for o.
func (h *host) knows(o *host, keepalive int) kstate.WGPeer {
	return kstate.WGPeer{NS: kstate.Transit, Device: "weftwg0", PublicKey: o.key.Public(), Keepalive: keepalive,
		Endpoint: netip.AddrPortFrom(netip.MustParseAddr(o.setup.Underlay), 51820), AllowedIPs: o.setup.VTEP + "/32"}
}

func (h *host) setPeer(o *host, keepalive int) {
	h.t.Helper()
	h.call("SetPeer", PeerArgs{Peer: h.knows(o, keepalive)}, nil)
}

// ping starts a stream of pings to the other VTEP, one each 10 ms, and returns after the first packet has been sent.
func (h *host) ping(count int) (wait func() pingResult) {
	h.t.Helper()
	cmd := h.enter("ping", h.setup.PeerVTEP, fmt.Sprint(count))
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	r := bufio.NewReader(out)
	if _, err := r.ReadString('\n'); err != nil {
		h.t.Fatalf("ping did not start: %v", err)
	}
	return func() (res pingResult) {
		h.t.Helper()
		if err := json.NewDecoder(r).Decode(&res); err != nil {
			h.t.Fatalf("ping: %v", err)
		}
		_ = cmd.Wait()
		return res
	}
}

func (h *host) mustPing(count int) {
	h.t.Helper()
	if r := h.ping(count)(); r.Received != count {
		h.t.Fatalf("pings: %+v", r)
	}
}

func cable(t *testing.T, a, b *host) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Namespace = "u0", netlink.NsPid(a.init.Process.Pid)
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "u0", PeerNamespace: netlink.NsPid(b.init.Process.Pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
}

// backends are those that this machine can run; the kernel's tests run wherever the kernel has WireGuard.
func backends(t *testing.T) []string {
	t.Helper()
	netnstest.Need(t)
	if err := probeKernel(t.Context()); errors.Is(err, errors.ErrUnsupported) {
		t.Log("this kernel has no WireGuard: engine only")
		return []string{EngineName}
	}
	return []string{EngineName, KernelName}
}

// slow stretches a limit where the machine is slow, as an emulated one is.
func slow(d time.Duration) time.Duration {
	if n, err := strconv.Atoi(os.Getenv("WEFT_E2E_SLOW")); err == nil && n > 1 {
		return d * time.Duration(n)
	}
	return d
}

func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	within = slow(within)
	for end := time.Now().Add(within); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, within)
		}
	}
}

// TestMesh walks a device through its life: set up, traffic, death and return of the agent, changes, removal.
func TestMesh(t *testing.T) {
	for _, backend := range backends(t) {
		t.Run(backend, func(t *testing.T) { testMesh(t, backend) })
	}
}

func testMesh(t *testing.T, backend string) {
	a, b := pair(t, backend, true)
	psk := mustPSK(t)
	pa, pb := a.knows(b, 25), b.knows(a, 0)
	pa.Preshared, pb.Preshared = psk.Fingerprint(), psk.Fingerprint()
	a.call("SetPeer", PeerArgs{pa, psk.Reveal()}, nil)
	b.call("SetPeer", PeerArgs{pb, psk.Reveal()}, nil)
	a.call("Initiate", None{}, nil)
	a.mustPing(20)

	before := a.observe()
	pa.Fresh = true
	want := Observation{
		Devices: []kstate.WGDevice{{NS: kstate.Transit, Name: "weftwg0", PublicKey: a.key.Public(), Port: 51820}},
		Peers:   []kstate.WGPeer{pa},
	}
	stats := before.Stats
	before.Stats = nil
	addrs := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	if d := cmp.Diff(want, before, addrs); d != "" {
		t.Errorf("observed (-want +got)\n%s", d)
	}
	if s := stats[0]; s.PublicKey != b.key.Public() || s.Endpoint != pa.Endpoint || s.Rx == 0 || s.Tx == 0 ||
		time.Since(s.LastHandshake).Abs() > time.Minute {
		t.Errorf("stats: %+v", s)
	}
	if o := b.observe(); o.Peers[0].Keepalive != 0 || o.Peers[0].Preshared != psk.Fingerprint() {
		t.Errorf("keepalive writes left a mark: %+v", o.Peers[0])
	}

	var id, again [2]int
	a.call("Identity", None{}, &id)
	wait := a.ping(200)
	_ = a.try("Die", None{}, nil) // never answers
	if err := a.cmd.Wait(); err == nil {
		t.Error("agent survived its death")
	}
	a.startAgent()
	a.call("Create", None{}, nil)
	a.call("SetDevice", DeviceArgs{a.key.Reveal(), 51820}, nil)
	a.call("SetPeer", PeerArgs{pa, psk.Reveal()}, nil)
	if r := wait(); r.Received != r.Sent {
		t.Errorf("pings over the agent's death: %+v", r)
	}
	a.call("Identity", None{}, &again)
	if id != again {
		t.Errorf("engine and link before %v, after %v", id, again)
	}
	after := a.observe()
	after.Stats = nil
	if d := cmp.Diff(want, after, addrs); d != "" {
		t.Errorf("observed by the next agent (-want +got)\n%s", d)
	}

	a.call("RemovePeer", b.key.Public(), nil)
	a.call("RemovePeer", b.key.Public(), nil) // absent is success
	if o := a.observe(); len(o.Peers) != 0 {
		t.Errorf("peers after removal: %v", o.Peers)
	}
	a.call("Delete", None{}, nil)
	a.call("Delete", None{}, nil)
	a.call("RemovePeer", b.key.Public(), nil)
	if o := a.observe(); len(o.Devices) != 0 {
		t.Errorf("devices after removal: %v", o.Devices)
	}
	if err := a.try("Signal", 0, nil); backend == EngineName && err == nil {
		eventually(t, 2*time.Second, "engine ends", func() bool { return a.try("Signal", 0, nil) != nil })
	}
	a.call("Create", None{}, nil)
}

// TestFirstContact: B learns of A 30 ms after A's first packet, or at the same time.
func TestFirstContact(t *testing.T) {
	for _, backend := range backends(t) {
		for _, smaller := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/first smaller %v", backend, smaller), func(t *testing.T) {
				a, b := pair(t, backend, smaller)
				a.setPeer(b, 0)
				time.Sleep(2 * yieldFor) // whatever A does by itself is lost on B
				wait := a.ping(30)
				time.Sleep(30 * time.Millisecond)
				b.setPeer(a, 0)
				// Without an initiation from the other side it is 5 s.
				if r := wait(); r.Received != r.Sent || r.FirstMS > slow(200*time.Millisecond).Seconds()*1e3 {
					t.Errorf("pings: %+v", r)
				}
			})
		}
	}
}

// TestCrossing: both sides learn of each other at the same moment, again and again.
func TestCrossing(t *testing.T) {
	for _, backend := range backends(t) {
		t.Run(backend, func(t *testing.T) {
			a, b := pair(t, backend, true)
			for i := range 20 {
				var both sync.WaitGroup
				both.Go(func() { a.setPeer(b, 25*(i%2)) })
				both.Go(func() { b.setPeer(a, 0) })
				both.Wait()
				eventually(t, time.Second, "handshake", func() bool { return a.observe().Peers[0].Fresh && b.observe().Peers[0].Fresh })
				a.call("RemovePeer", b.key.Public(), nil)
				b.call("RemovePeer", a.key.Public(), nil)
			}
		})
	}
}

// TestInitiate: peers that were added while nothing could be sent get their handshake from Initiate.
func TestInitiate(t *testing.T) {
	for _, smaller := range []bool{true, false} {
		t.Run(fmt.Sprintf("smaller key %v", smaller), func(t *testing.T) {
			a, b := pair(t, EngineName, smaller)
			b.call("AddQuietly", b.knows(a, 0), nil)
			for _, keepalive := range []int{0, 25} {
				a.call("AddQuietly", a.knows(b, keepalive), nil)
				time.Sleep(2 * yieldFor)
				if p := a.observe().Peers[0]; p.Fresh || p.Keepalive != keepalive {
					t.Fatalf("not added quietly: %+v", p)
				}
				a.call("Initiate", None{}, nil)
				eventually(t, 300*time.Millisecond, "handshake", func() bool { return a.observe().Peers[0].Fresh })
				if p := a.observe().Peers[0]; p.Keepalive != keepalive {
					t.Errorf("keepalive is %d, want %d", p.Keepalive, keepalive)
				}
				a.call("RemovePeer", b.key.Public(), nil)
			}
		})
	}
}

// TestRoaming: a peer that moves is followed, and its record does not draw it back.
func TestRoaming(t *testing.T) {
	for _, backend := range backends(t) {
		t.Run(backend, func(t *testing.T) {
			a, b := pair(t, backend, false)
			a.setPeer(b, 0)
			b.setPeer(a, 0)
			a.mustPing(5)
			b.call("Move", [2]string{"192.0.2.2", "192.0.2.3"}, nil)
			b.mustPing(5)
			moved := netip.MustParseAddrPort("192.0.2.3:51820")
			check := func() {
				t.Helper()
				o := a.observe()
				if p := o.Peers[0]; p.Endpoint != moved || !p.Fresh || o.Stats[0].Endpoint != moved {
					t.Errorf("peer: %+v", p)
				}
			}
			check()
			p := a.knows(b, 0)
			p.AllowedIPs += ",100.64.0.9/32"
			a.call("SetPeer", PeerArgs{Peer: p}, nil)
			check()
			if got := a.observe().Peers[0].AllowedIPs; got != p.AllowedIPs {
				t.Errorf("allowed IPs %q, want %q", got, p.AllowedIPs)
			}
			a.mustPing(5)
		})
	}
}

// TestHungEngine: an engine that does not answer is an error that names it, soon.
func TestHungEngine(t *testing.T) {
	a, b := pair(t, EngineName, true)
	a.setPeer(b, 0)
	a.call("Signal", int(unix.SIGSTOP), nil)
	for _, method := range []string{"Observe", "Initiate", "Create"} {
		start := time.Now()
		err := a.try(method, None{}, &Observation{})
		if err == nil || !strings.Contains(err.Error(), "weftwg0") || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("%s: %v", method, err)
		}
		if d := time.Since(start); d > 2*answerTimeout {
			t.Errorf("%s took %s", method, d)
		}
	}
	a.call("Signal", int(unix.SIGCONT), nil)
	if o := a.observe(); len(o.Peers) != 1 {
		t.Errorf("after it went on: %+v", o)
	}
}
