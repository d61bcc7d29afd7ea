package plan

import (
	"fmt"
	"net/netip"
	"time"

	"weft/keys"
	"weft/pkg/overlay"
)

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
	epoch  = time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
)

// testKey is a public key that is told by its first bytes.
func testKey(node, generation int) keys.PublicKey {
	return keys.PublicKey{byte(node >> 8), byte(node), byte(generation), 31: 1}
}

func testMAC(node, n int) overlay.MAC {
	return overlay.MAC{2, 0xee, byte(node >> 8), byte(node), byte(n >> 8), byte(n)}
}

func testRouter(node, network int) overlay.Router {
	m := overlay.MAC{2, 0xaa, 0, byte(node >> 8), byte(node), byte(network)}
	return overlay.Router{MAC: m, Address: m.LinkLocal()}
}

// testNode is node n1, n2, ... with one key generation.
func testNode(n int) overlay.Node {
	return overlay.Node{
		Name:      fmt.Sprintf("n%d", n),
		WireGuard: []overlay.WireGuardKey{{Generation: 1, PublicKey: testKey(n, 1), Port: 51820}},
		Underlay:  []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2 + byte(n>>8), byte(n)})}, UnderlayMTU: 1500,
		VTEP: netip.AddrFrom4([4]byte{100, 64, byte(n >> 8), byte(n)}), VXLANPort: 4789, Backend: "kernel", Revision: 1,
	}
}

// selfOf is node n as it knows itself.
func selfOf(n int) Self {
	node := testNode(n)
	return Self{
		Node: node.Name, VTEP: node.VTEP, Underlay: node.Underlay[0], UnderlayMTU: node.UnderlayMTU, VXLANPort: node.VXLANPort,
		Backend: node.Backend, WireGuard: node.WireGuard, Keepalive: 25, WGPorts: []uint16{51820, 51821},
		EgressPool: prefix("169.254.64.0/18"), Routers: map[overlay.NetworkID]overlay.Router{},
		Legs: map[overlay.NetworkID]overlay.Leg{}, IPv6: true, BridgeNetfilter: true, Preshared: map[keys.PublicKey]string{}, Carried: map[string]int{},
	}
}

// testNetwork is network number n: id 0000000000n0, VNI 8388608+n, 10.0.n.0/24.
func testNetwork(n int, name string, encrypted bool) overlay.Network {
	return overlay.Network{
		ID: testID(n), Name: name, VNI: overlay.MinVNI + overlay.VNI(n), Subnets: []netip.Prefix{prefix(fmt.Sprintf("10.0.%d.0/24", n))},
		Gateway: addr(fmt.Sprintf("10.0.%d.1", n)), Encrypted: encrypted, MTU: NetworkMTU(1500, encrypted),
		Created: epoch.Add(time.Duration(n) * time.Hour), Revision: 1,
	}
}

// testID differs in its first eight digits, which name the leg.
func testID(n int) overlay.NetworkID { return overlay.NetworkID(fmt.Sprintf("%08x%04x", n, n)) }

func testEndpoint(node, n int, address string) overlay.Endpoint {
	name := fmt.Sprintf("e%d-%d", node, n)
	return overlay.Endpoint{ID: overlay.EndpointID(name), Name: name, Address: addr(address), MAC: testMAC(node, n)}
}

// world collects an Input.
type world struct {
	Input
	snap *overlay.Snapshot
}

// newWorld is a complete snapshot with nodes n1..nN, seen from n1.
func newWorld(nodes int) *world {
	w := &world{snap: &overlay.Snapshot{Cluster: "c", Nodes: map[string]overlay.Node{}, Networks: map[string]overlay.Network{}, Complete: true}}
	for n := 1; n <= nodes; n++ {
		node := testNode(n)
		w.snap.Nodes[node.Name] = node
	}
	w.Self, w.Snapshot = selfOf(1), w.snap
	return w
}

// network adds a network with this node's router and, unless it is internal, its leg.
func (w *world) network(n int, net overlay.Network) overlay.Network {
	w.snap.Networks[net.Name] = net
	w.Self.Routers[net.ID] = testRouter(1, n)
	if !net.Internal {
		w.Self.Legs[net.ID] = overlay.Leg{Host: netip.AddrFrom4([4]byte{169, 254, 64, byte(2 * n)}),
			Network: netip.AddrFrom4([4]byte{169, 254, 64, byte(2*n + 1)})}
	}
	return net
}

// local adds an endpoint on this node.
func (w *world) local(net overlay.Network, e overlay.Endpoint) *overlay.LocalEndpoint {
	w.Local = append(w.Local, overlay.LocalEndpoint{Endpoint: e, NetworkID: net.ID, Network: net.Name, IfName: "eth0"})
	return &w.Local[len(w.Local)-1]
}

// remote adds a node's set on a network.
func (w *world) remote(node int, net overlay.Network, network int, es ...overlay.Endpoint) {
	w.snap.Endpoints = append(w.snap.Endpoints, overlay.EndpointSet{Node: fmt.Sprintf("n%d", node), Network: net.Name,
		NetworkID: net.ID, Router: testRouter(node, network), Endpoints: es, Revision: 1})
}
