package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/keys"
	"weft/pkg/api"
	"weft/pkg/lab"
	"weft/pkg/overlay"
)

// An adversary here is somebody with every right in Consul, who sits on the host "out" and has keys of his own, but none
// of a node's or a signer's.

// adversary is what he has made himself.
type adversary struct {
	w       *world
	id      keys.Identity
	wg      keys.PrivateKey
	cluster string
}

func newAdversary(w *world) *adversary {
	w.t.Helper()
	id, err := keys.NewIdentity()
	if err != nil {
		w.t.Fatal(err)
	}
	wg, err := keys.NewPrivateKey()
	if err != nil {
		w.t.Fatal(err)
	}
	return &adversary{w, id, wg, w.status("n1").Cluster}
}

// nodeRecord reads a node's record from Consul.
func (a *adversary) nodeRecord(name string) (n overlay.Node) {
	a.w.t.Helper()
	if err := json.Unmarshal(a.w.kvGet("nodes/"+name), &n); err != nil {
		a.w.t.Fatal(err)
	}
	return n
}

// seal signs a record with his own identity.
func (a *adversary) seal(kind, path string, record any) []byte {
	a.w.t.Helper()
	v, err := keys.Envelope{Kind: kind, Cluster: a.cluster, Path: path}.Seal(a.id, record)
	if err != nil {
		a.w.t.Fatal(err)
	}
	return v
}

// putNode writes a node record and announces its revision.
func (a *adversary) putNode(name string, value []byte, rev uint64) {
	a.w.kvPut("nodes/"+name, value)
	a.w.kvPut("revs/nodes/"+name, fmt.Append(nil, rev))
}

// edit changes n2's record and signs it as himself, above the newest revision.
func (a *adversary) edit(name string, change func(*overlay.Node)) {
	n := a.nodeRecord(name)
	n.Revision += 5
	change(&n)
	a.putNode(name, a.seal("node", "nodes/"+name, n), n.Revision)
}

func (a *adversary) editNetwork(name string, change func(*overlay.Network)) {
	var n overlay.Network
	if err := json.Unmarshal(a.w.kvGet("networks/"+name), &n); err != nil {
		a.w.t.Fatal(err)
	}
	n.Revision += 5
	change(&n)
	a.w.kvPut("networks/"+name, a.seal("network", "networks/"+name, n))
}

func (a *adversary) editEndpoints(node, network string, change func(*overlay.EndpointSet)) {
	var s overlay.EndpointSet
	path := "endpoints/" + node + "/" + network
	if err := json.Unmarshal(a.w.kvGet(path), &s); err != nil {
		a.w.t.Fatal(err)
	}
	s.Revision += 5
	change(&s)
	a.w.kvPut(path, a.seal("endpoints", path, s))
	a.w.kvPut("revs/"+network+"/"+node, fmt.Append(nil, s.Revision))
}

// attack is one thing he tries. done reports whether n1 fell for it.
type attack struct {
	name string
	// path is what `weft status` names, "" where nothing can be told.
	path string
	// without are the checks that stop it.
	without string
	run     func(a *adversary)
	done    func(w *world) bool
	// lockedOnly: an open cluster promises nothing here.
	lockedOnly bool
}

const evil = "evil"

func (w *world) node(host, name string) (n api.Node, ok bool) {
	var ns []api.Node
	w.weftJSON(&ns, host, "node", "ls")
	for _, n := range ns {
		if n.Name == name && n.Identity != "" && n.Problem == "" || n.Name == name && len(n.Underlay) > 0 {
			return n, true
		}
	}
	return n, false
}

func attacks(a *adversary) []attack {
	out := a.w.underlay("out")
	nodeHas := func(f func(api.Node) bool) func(*world) bool {
		return func(w *world) bool { n, ok := w.node("n1", "n2"); return ok && f(n) }
	}
	network := func(f func(api.Network) bool) func(*world) bool {
		return func(w *world) bool { var n api.Network; w.weftJSON(&n, "n1", "network", "inspect", "adv"); return f(n) }
	}
	endpoint := func(f func(api.Endpoint) bool) func(*world) bool {
		return func(w *world) bool {
			var es []api.Endpoint
			w.weftJSON(&es, "n1", "endpoint", "ls")
			for _, e := range es {
				if e.Node == "n3" && f(e) {
					return true
				}
			}
			return false
		}
	}
	var stolen overlay.EndpointSet // what n2 has
	load := func() overlay.Endpoint {
		if err := json.Unmarshal(a.w.kvGet("endpoints/n2/adv"), &stolen); err != nil {
			a.w.t.Fatal(err)
		}
		return stolen.Endpoints[0]
	}
	return []attack{
		{name: "add a node", path: "nodes/" + evil, without: "admission", lockedOnly: true, run: func(a *adversary) {
			n := a.nodeRecord("n2")
			n.Name, n.Identity, n.Revision = evil, a.id.Public(), 1
			n.Underlay, n.VTEP = []netip.Addr{out}, netip.MustParseAddr("100.64.9.9")
			n.WireGuard = n.WireGuard[len(n.WireGuard)-1:]
			n.WireGuard[0].PublicKey, n.WireGuard[0].KEM = a.wg.Public(), ""
			a.putNode(evil, a.seal("node", "nodes/"+evil, n), 1)
		}, done: func(w *world) bool { _, ok := w.node("n1", evil); return ok }},
		{name: "swap a WireGuard key", path: "nodes/n2", without: "signature", run: func(a *adversary) {
			a.edit("n2", func(n *overlay.Node) { n.WireGuard[len(n.WireGuard)-1].PublicKey = a.wg.Public() })
		}, done: nodeHas(func(n api.Node) bool { return strings.Join(n.WireGuard, " ") == a.wg.Public().String() })},
		{name: "swap an endpoint", path: "nodes/n2", without: "signature", run: func(a *adversary) {
			a.edit("n2", func(n *overlay.Node) { n.Underlay = []netip.Addr{out} })
		}, done: nodeHas(func(n api.Node) bool { return n.Underlay[0] == out })},
		{name: "swap a VTEP", path: "nodes/n2", without: "signature", run: func(a *adversary) {
			a.edit("n2", func(n *overlay.Node) { n.VTEP = netip.MustParseAddr("100.64.9.9") })
		}, done: nodeHas(func(n api.Node) bool { return n.VTEP.String() == "100.64.9.9" })},
		{name: "take a name", path: "nodes/n2", without: "pin,admission", run: func(a *adversary) {
			a.edit("n2", func(n *overlay.Node) { n.Identity, n.Underlay = a.id.Public(), []netip.Addr{out} })
		}, done: nodeHas(func(n api.Node) bool { return n.Identity == a.id.Public().String() })},
		{name: "say goodbye for another", path: "nodes/n2", without: "signature", run: func(a *adversary) {
			a.edit("n2", func(n *overlay.Node) { n.Left = time.Now() })
		}, done: nodeHas(func(n api.Node) bool { return n.Left })},
		{name: "move a record under another name", path: "nodes/n9", without: "path,signature,admission", run: func(a *adversary) {
			v := a.w.kvGet("nodes/n3")
			a.putNode("n9", v, 99)
		}, done: func(w *world) bool {
			for _, p := range w.status("n1").Problems {
				if p.Subject == "nodes/n9" {
					return false
				}
			}
			return true
		}},
		{name: "switch encryption off", path: "networks/adv", without: "signature,immutable", run: func(a *adversary) {
			a.editNetwork("adv", func(n *overlay.Network) { n.Encrypted = false })
		}, done: network(func(n api.Network) bool { return !n.Encrypted })},
		{name: "change a VNI", path: "networks/adv", without: "signature,immutable", run: func(a *adversary) {
			a.editNetwork("adv", func(n *overlay.Network) { n.VNI += 1000 })
		}, done: network(func(n api.Network) bool { return n.VNI >= overlay.MinVNI+1000 })},
		{name: "claim an address", path: "endpoints/n3/adv", without: "signature", run: func(a *adversary) {
			e := load()
			a.editEndpoints("n3", "adv", func(s *overlay.EndpointSet) { s.Endpoints[0].Address = e.Address })
		}, done: endpoint(func(e api.Endpoint) bool { return e.Address == load().Address })},
		{name: "claim a MAC", path: "endpoints/n3/adv", without: "signature", run: func(a *adversary) {
			e := load()
			a.editEndpoints("n3", "adv", func(s *overlay.EndpointSet) { s.Endpoints[0].MAC = e.MAC })
		}, done: endpoint(func(e api.Endpoint) bool { return e.MAC == load().MAC.String() })},
		{name: "claim a service", path: "endpoints/n3/adv", without: "signature", run: func(a *adversary) {
			a.editEndpoints("n3", "adv", func(s *overlay.EndpointSet) { s.Endpoints[0].Services = []string{"bank"} })
		}, done: endpoint(func(e api.Endpoint) bool { return e.Service == "bank" })},
		{name: "garbage", path: "nodes/n2", run: func(a *adversary) {
			var o any
			a.w.runTool("consul", &o, "kv", "fill", "nodes/n2", "[", "100000")
			a.w.kvPut("revs/nodes/n2", []byte("1099511627776"))
			a.w.runTool("consul", &o, "kv", "fill", "networks/adv", "\xff", "500000")
			a.w.kvPut("kem/n2/n1", []byte("{}"))
			a.w.kvPut("trust/nodes/n2", []byte("null"))
			a.w.kvPut("trust/revoked/zz", []byte(`{"revision": 1}`))
		}, done: func(*world) bool { return false }},
		{name: "flood", run: func(a *adversary) {
			var o any
			a.w.runTool("consul", &o, "kv", "flood", "nodes/", "10000", "500")
			a.w.runTool("consul", &o, "kv", "flood", "networks/", "40", "300000")
			a.w.kvDel("networks/bogus-")
		}, done: func(*world) bool { return false }},
	}
}

// leaks counts what may never be on the wire.
type leaks struct{ toOut, clear atomic.Int64 }

func (l *leaks) see(f lab.Frame, out netip.Addr, marker []byte) {
	b := f.Data
	if len(b) < 42 || binary.BigEndian.Uint16(b[12:]) != 0x0800 || b[23] != 17 {
		return
	}
	head := 14 + int(b[14]&15)*4
	port := binary.BigEndian.Uint16(b[head+2:])
	if dst, _ := netip.AddrFromSlice(b[30:34]); dst == out && (port == 51820 || port == 51821 || port == 4789) {
		l.toOut.Add(1)
	}
	if port == 4789 || bytes.Contains(b, marker) {
		l.clear.Add(1)
	}
}

// advWorld puts an encrypted network with an endpoint on each node into a lab.
func advWorld(w *world) (to string) {
	n := w.network("adv", "--encrypted")
	w.endpoint("n1", n.Name, "adv-a")
	b := w.endpoint("n2", n.Name, "adv-b")
	w.endpoint("n3", n.Name, "adv-c")
	to = b.Address.Addr().String()
	w.ping("n1", "adv-a", to, 20, 20*time.Millisecond, 84)
	return to
}

// withstand runs every attack, one after the other, while a flow runs, and watches the wire.
func withstand(t *testing.T, w *world, locked bool) {
	to := advWorld(w)
	a := newAdversary(w)
	for _, at := range attacks(a) {
		t.Run(at.name, func(t *testing.T) {
			if at.lockedOnly && !locked {
				return
			}
			sub := &world{w.Lab, t}
			a.w = sub
			var l leaks
			out := sub.underlay("out")
			c, err := sub.Capture(context.Background(), func(f lab.Frame) { l.see(f, out, []byte("adv-marker")) })
			if err != nil {
				t.Fatal(err)
			}
			before := map[string][]byte{}
			for _, path := range []string{"nodes/n2", "networks/adv", "endpoints/n3/adv"} {
				before[path] = sub.kvGet(path)
			}
			ping := sub.startPing("n1", "adv-a", to, 200, 10*time.Millisecond, 84)
			at.run(a)
			time.Sleep(1500 * time.Millisecond)
			if at.done(sub) {
				t.Errorf("the attack succeeded: %+v", sub.status("n1").Problems)
			}
			if at.path != "" {
				sub.eventually(5*time.Second, "weft status names "+at.path, func() error { return named(sub.status("n1"), at.path) })
			}
			var p pings
			ping.result(&p)
			if p.Received != p.Sent {
				var again pings
				sub.startPing("n1", "adv-a", to, 200, 10*time.Millisecond, 84).result(&again)
				if again.Received == again.Sent {
					t.Errorf("running flow lost %d of %d", p.Sent-p.Received, p.Sent)
				}
			}
			if _, err := c.Stop(); err != nil {
				t.Fatal(err)
			}
			if l.toOut.Load() > 0 || l.clear.Load() > 0 {
				t.Errorf("%d packets went to the adversary's host, %d in clear", l.toOut.Load(), l.clear.Load())
			}
			for path, v := range before {
				sub.kvPut(path, v)
			}
			sub.kvDel("nodes/" + evil)
			sub.kvDel("nodes/n9")
			sub.kvDel("nodes/bogus-")
			sub.kvDel("revs/nodes/bogus-")
		})
	}
	t.Run("start under a name that was taken meanwhile", func(t *testing.T) {
		sub := &world{w.Lab, t}
		a.w = sub
		if err := sub.StopAgent(context.Background(), "n2", unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		a.edit("n2", func(n *overlay.Node) { n.Identity = a.id.Public() })
		sub.startAgent("n2")
		sub.eventually(10*time.Second, "the record is n2's own again", func() error {
			if n := a.nodeRecord("n2"); n.Identity == a.id.Public() {
				return errors.New("it is not")
			}
			return nil
		})
	})
	t.Run("delete everything", func(t *testing.T) {
		sub := &world{w.Lab, t}
		sub.hitless(t, "Consul wiped", 800, func() *traffic { return sub.startTraffic("n1", "adv-a", "n2", "adv-b", to, 800) }, func() {
			sub.kvDel("")
			time.Sleep(2 * time.Second)
		})
		sub.eventually(20*time.Second, "records are back", func() error {
			for _, p := range []string{"nodes/n1", "nodes/n2", "nodes/n3", "networks/adv", "endpoints/n3/adv"} {
				if sub.kvGet(p) == nil {
					return errors.New(p + " is missing")
				}
			}
			return nil
		})
	})
}

// named says whether a status shows a problem with a path.
func named(s api.Status, path string) error {
	for _, p := range s.Problems {
		if strings.Contains(p.Subject+" "+p.Message, path) {
			return nil
		}
	}
	return fmt.Errorf("problems are %+v", s.Problems)
}

func TestAdversaryLocked(t *testing.T) {
	w, _ := lockedWorld(t, lab.Options{})
	withstand(t, w, true)
}

func TestAdversaryOpen(t *testing.T) {
	w := ownWorld(t, lab.Options{})
	withstand(t, w, false)
}

// TestAdversaryVoid runs each attack against an agent on n1 that lacks the check which stops it: it must succeed, or the
// tests above prove nothing.
func TestAdversaryVoid(t *testing.T) {
	void := buildVoid(t)
	w, _ := lockedWorld(t, lab.Options{Weft: void})
	advWorld(w)
	a := newAdversary(w)
	data := filepath.Join(w.Dir(), "n1", "data")
	// The others would write their records again as soon as they see another revision, and sometimes be quicker than n1.
	for _, n := range []string{"n2", "n3"} {
		if err := w.StopAgent(context.Background(), n, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.startAgentOnly(n) })
	}
	for _, at := range attacks(a) {
		if at.without == "" {
			continue
		}
		t.Run(at.name, func(t *testing.T) {
			sub := &world{w.Lab, t}
			a.w = sub
			restart := func(checks string, while func()) {
				if err := sub.StopAgent(context.Background(), "n1", unix.SIGTERM); err != nil {
					t.Fatal(err)
				}
				while()
				_ = os.Remove(data + "/ledger.json") // what was accepted without a check must not stay
				if err := os.WriteFile(data+"/void", []byte(checks), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := sub.StartAgent(context.Background(), "n1"); err != nil {
					t.Fatal(err)
				}
				sub.eventually(20*time.Second, "n1 back", func() error { _, err := sub.try("n1", "weft", "network", "inspect", "adv"); return err })
			}
			before := map[string][]byte{}
			for _, path := range sub.kvList("nodes/") {
				p := strings.TrimPrefix(path, "weft/")
				before[p] = sub.kvGet(p)
			}
			for _, p := range []string{"networks/adv", "endpoints/n3/adv", "revs/nodes/n2", "revs/adv/n3"} {
				before[p] = sub.kvGet(p)
			}
			restart(at.without, func() {})
			at.run(a)
			deadline := time.Now().Add(10 * time.Second)
			for !at.done(sub) {
				if time.Now().After(deadline) {
					t.Errorf("without the check %q the attack does not succeed: %+v", at.without, sub.status("n1").Problems)
					break
				}
				time.Sleep(500 * time.Millisecond)
				at.run(a) // the node that is attacked writes its record again whenever it sees another revision
			}
			restart("", func() { // n1 would put back what it believes
				for path, v := range before {
					sub.kvPut(path, v)
				}
				for _, n := range []string{evil, "n9"} {
					sub.kvDel("nodes/" + n)
					sub.kvDel("revs/nodes/" + n)
				}
			})
		})
	}
}
