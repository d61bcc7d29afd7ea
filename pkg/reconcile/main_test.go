package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"weft/pkg/kstate"
	"weft/pkg/overlay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// kernel is a kernel in memory. It is as strict as the real one about what must be there first, and forgets what stands
// on what is removed.
type kernel struct {
	mu     sync.Mutex
	items  map[kstate.Key]kstate.Entry
	faults []string // an operation whose text holds one of these fails
	blind  error    // Observe fails
	log    []string // operations and how they went
}

func newKernel() *kernel { return &kernel{items: map[kstate.Key]kstate.Entry{}} }

func (k *kernel) Observe(ctx context.Context, _ *kstate.State) (*kstate.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.blind != nil {
		return nil, k.blind
	}
	s := kstate.NewState()
	for key, e := range k.items {
		s.Entries[key] = e
	}
	return s, ctx.Err()
}

func (k *kernel) Apply(_ context.Context, op kstate.Op) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.apply(op)
	line := op.String()
	line, _, _ = strings.Cut(line, "\n")
	if err != nil {
		line += " -> " + err.Error()
	}
	k.log = append(k.log, line)
	return err
}

func (k *kernel) apply(op kstate.Op) error {
	for _, f := range k.faults {
		if strings.Contains(op.String(), f) {
			return errors.New("fault")
		}
	}
	key := op.Item.Key()
	if op.Verb == kstate.Remove {
		delete(k.items, key)
		for other, e := range k.items {
			if goesWith(e.Item, op.Item) {
				delete(k.items, other)
			}
		}
		return nil
	}
	if !k.there(key.NS, op.Item.On()) && key.Kind != "netns" {
		return fmt.Errorf("no %s in %s", op.Item.On(), key.NS)
	}
	if l, ok := op.Item.(kstate.Link); ok && l.PeerName != "" && !k.there(l.PeerNS, "") {
		return fmt.Errorf("no namespace %s", l.PeerNS)
	}
	k.items[key] = kstate.Entry{Group: op.Group, Item: op.Item}
	return nil
}

// goesWith reports whether it vanishes with gone.
func goesWith(it, gone kstate.Item) bool {
	key := it.Key()
	switch g := gone.(type) {
	case kstate.NetNS:
		return key.NS == g.Name
	case kstate.Link:
		return it.On() != "" && (key.NS == g.NS && it.On() == g.Name || key.NS == g.PeerNS && it.On() == g.PeerName)
	case kstate.Table:
		e, elem := it.(kstate.Elem)
		set, isSet := it.(kstate.NFSet)
		return key.NS == g.NS && (elem && e.Family == g.Family || isSet && set.Family == g.Family)
	}
	return false
}

// there reports whether a namespace and a link in it exist.
func (k *kernel) there(ns, name string) bool {
	if _, ok := k.items[kstate.NetNS{Name: ns}.Key()]; !ok && ns != kstate.Host {
		return false
	}
	if name == "" || name == "lo" {
		return true
	}
	for _, e := range k.items {
		if l, ok := e.Item.(kstate.Link); ok && (l.NS == ns && l.Name == name || l.PeerNS == ns && l.PeerName == name) {
			return true
		}
	}
	return false
}

// take is the log since the last take, each line once.
func (k *kernel) take() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	seen := map[string]bool{}
	var b strings.Builder
	for _, line := range k.log {
		if !seen[line] {
			b.WriteString(line + "\n")
		}
		seen[line] = true
	}
	k.log = nil
	return b.String()
}

func (k *kernel) do(f func()) { k.mu.Lock(); defer k.mu.Unlock(); f() }

// world is a wanted state: the shared fence, what encrypted networks share if one is named so, and the networks. A
// network "aa" has one endpoint "aa1", or two with "aa+".
func world(networks ...string) *kstate.State {
	s := kstate.NewState()
	s.Prune[""] = true
	s.Put("", kstate.Table{Family: kstate.Inet})
	s.Put("", kstate.NFSet{Family: kstate.Inet, Name: "vnis", Type: "vni"})
	for _, n := range networks {
		id, more := strings.CutSuffix(n, "+")
		encrypted := strings.HasPrefix(id, "enc")
		if encrypted {
			transit(s)
			s.Depends[id] = []string{kstate.TransitGroup}
		}
		network(s, id, encrypted)
		endpoint(s, id, id+"1", 2)
		if more {
			endpoint(s, id, id+"2", 3)
		}
	}
	return s
}

func transit(s *kstate.State) {
	s.Prune[kstate.TransitGroup] = true
	put := func(it kstate.Item) { s.Put(kstate.TransitGroup, it) }
	put(kstate.NetNS{Name: kstate.Transit})
	put(kstate.Table{NS: kstate.Transit, Family: kstate.Inet})
	put(kstate.Link{NS: kstate.Transit, Name: "weftwg0", Kind: kstate.KindWireGuard, MTU: 1420})
	put(kstate.WGDevice{NS: kstate.Transit, Name: "weftwg0", Port: 51820})
	put(kstate.WGPeer{NS: kstate.Transit, Device: "weftwg0", AllowedIPs: "100.64.0.2/32"})
	put(kstate.Up{NS: kstate.Transit, Link: "weftwg0"})
}

func network(s *kstate.State, id string, encrypted bool) {
	s.Prune[id] = true
	ns := kstate.NetworkNS(overlay.NetworkID(id))
	put := func(it kstate.Item) { s.Put(id, it) }
	underlay := kstate.Host
	if encrypted {
		underlay = kstate.Transit
	}
	put(kstate.NetNS{Name: ns})
	put(kstate.Table{NS: ns, Family: kstate.BridgeFamily})
	put(kstate.Link{NS: ns, Name: kstate.Bridge, Kind: kstate.KindBridge, MTU: 1450})
	put(kstate.Link{NS: ns, Name: kstate.VXLAN, Kind: kstate.KindVXLAN, MTU: 1450, VNI: vni(id), Underlay: underlay})
	put(kstate.Port{NS: ns, Link: kstate.VXLAN, Bridge: kstate.Bridge})
	put(kstate.Up{NS: ns, Link: kstate.Bridge})
	put(kstate.Up{NS: ns, Link: kstate.VXLAN})
	s.Put("", kstate.Elem{Family: kstate.Inet, Set: "vnis", Value: fmt.Sprint(vni(id))})
}

func vni(id string) overlay.VNI {
	n := overlay.MinVNI
	for _, c := range id {
		n += overlay.VNI(c)
	}
	return n
}

func endpoint(s *kstate.State, id, name string, host byte) {
	ns, inside := kstate.NetworkNS(overlay.NetworkID(id)), kstate.EndpointPrefix+name
	put := func(it kstate.Item) { s.Put(id, it) }
	put(kstate.NetNS{Name: inside})
	put(kstate.Link{NS: ns, Name: "e" + name, Kind: kstate.KindVeth, MTU: 1450, PeerNS: inside, PeerName: "eth0"})
	put(kstate.Port{NS: ns, Link: "e" + name, Bridge: kstate.Bridge, Locked: true})
	put(kstate.Addr{NS: inside, Link: "eth0", Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, host}), 24)})
	put(kstate.Up{NS: ns, Link: "e" + name})
	put(kstate.Up{NS: inside, Link: "eth0"})
	put(kstate.Route{NS: inside, Dst: netip.MustParsePrefix("0.0.0.0/0"), Link: "eth0"})
}
