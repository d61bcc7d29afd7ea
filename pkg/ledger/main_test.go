package ledger

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/keys"
	"weft/pkg/overlay"
)

const cluster = "5d41402abc4b"

// identity is the same for the same name in every run.
func identity(name string) keys.Identity {
	id, err := keys.IdentityFrom([32]byte([]byte(fmt.Sprintf("%-32.32s", name))))
	if err != nil {
		panic("ledger test: " + err.Error())
	}
	return id
}

func node(name string, rev uint64) overlay.Node {
	last := name[len(name)-1]
	return overlay.Node{Name: name, Identity: identity(name).Public(), WireGuard: []overlay.WireGuardKey{{Generation: 1, PublicKey: keys.PublicKey{last}, Port: 51820}},
		Underlay: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, last})}, UnderlayMTU: 1500, VTEP: netip.AddrFrom4([4]byte{100, 64, 0, last}),
		VXLANPort: 4789, Datacenter: "dc1", Version: "1", Backend: "kernel", Revision: rev}
}

// network makes record number n: id, VNI and subnet follow from n.
func network(name, signer string, n byte, rev uint64) overlay.Network {
	subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, n, 0, 0}), 24)
	return overlay.Network{ID: overlay.NetworkID(fmt.Sprintf("%012x", n)), Name: name, VNI: overlay.MinVNI + overlay.VNI(n),
		Subnets: []netip.Prefix{subnet}, Gateway: subnet.Addr().Next(), Encrypted: true, MTU: 1370, Signer: signer, Revision: rev}
}

func deleted(n overlay.Network) overlay.Network {
	n.Deleted = time.Unix(1_700_000_000, 0).UTC()
	return n
}

func endpoints(node, network string, n byte, rev uint64) overlay.EndpointSet {
	mac := overlay.MAC{2, node[len(node)-1], n, 0, 0, 1}
	return overlay.EndpointSet{Node: node, Network: network, NetworkID: overlay.NetworkID(fmt.Sprintf("%012x", n)),
		Router: overlay.Router{MAC: mac, Address: mac.LinkLocal()}, Endpoints: []overlay.Endpoint{}, Revision: rev}
}

func removal(node, signer string, upTo, rev uint64) overlay.Removal {
	return overlay.Removal{Node: node, Identity: identity(node).Public(), NodeRevision: upTo, Removed: time.Unix(1_700_000_000, 0).UTC(),
		Signer: signer, Revision: rev}
}

// offer is a value at a path.
type offer struct {
	path  string
	value []byte
	// err is what the refusal must say, empty when the record must be accepted.
	err string
}

// at seals a record as `by` and puts it where it belongs.
func at(by string, record any) offer { return misplaced("", "", by, record) }

// misplaced seals a record for a path and cluster that may be wrong; empty ones are right.
func misplaced(path, in, by string, record any) offer {
	kind, own := "", ""
	switch r := record.(type) {
	case overlay.Node:
		kind, own = KindNode, "nodes/"+r.Name
	case overlay.Network:
		kind, own = KindNetwork, "networks/"+r.Name
	case overlay.EndpointSet:
		kind, own = KindEndpoints, "endpoints/"+r.Node+"/"+r.Network
	case overlay.Removal:
		kind, own = KindRemoval, "removed/"+r.Node
	}
	if path == "" {
		path = own
	}
	if in == "" {
		in = cluster
	}
	value, err := keys.Envelope{Kind: kind, Cluster: in, Path: path}.Seal(identity(by), record)
	if err != nil {
		panic("ledger test: " + err.Error())
	}
	return offer{path: path, value: value}
}

// refused says that an offer must be refused, and why.
func (o offer) refused(err string) offer { o.err = err; return o }

// make puts offers into a ledger and checks what becomes of each, and that a refused one changes nothing.
func (o offer) to(t *testing.T, l *Ledger) {
	t.Helper()
	before := l.Snapshot(true)
	changed, err := l.Offer(o.path, o.value)
	switch {
	case o.err == "" && err != nil:
		t.Fatalf("%s refused: %v", o.path, err)
	case o.err != "" && err == nil:
		t.Fatalf("%s accepted, want an error with %q:\n%s", o.path, o.err, o.value)
	case o.err != "" && !strings.Contains(err.Error(), o.err):
		t.Fatalf("%s: error is %q, want %q in it", o.path, err, o.err)
	case changed != (o.err == ""):
		t.Fatalf("%s: changed is %v", o.path, changed)
	}
	if o.err != "" {
		if l.Rejected()[o.path] != err.Error() {
			t.Errorf("%s: rejected because %q, want %q", o.path, l.Rejected()[o.path], err)
		}
		same(t, before, l.Snapshot(true))
	} else if why, bad := l.Rejected()[o.path]; bad {
		t.Errorf("%s: accepted, but still rejected: %s", o.path, why)
	}
}

var snapshots = cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}

func same(t *testing.T, want, got *overlay.Snapshot) {
	t.Helper()
	if reflect.DeepEqual(want, got) {
		return
	}
	if diff := cmp.Diff(want, got, snapshots); diff != "" {
		t.Errorf("snapshot differs (-want +got):\n%s", diff)
	}
}

// reload is the ledger after a restart.
func reload(t *testing.T, l *Ledger) *Ledger {
	t.Helper()
	data, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(data)
	if err != nil {
		t.Fatal(err)
	}
	if again.Cluster() != l.Cluster() {
		t.Errorf("cluster is %q after a restart, was %q", again.Cluster(), l.Cluster())
	}
	same(t, l.Snapshot(true), again.Snapshot(true))
	return again
}
