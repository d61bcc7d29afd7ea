package consul

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"weft/pkg/overlay"
)

// The folders of the prefix, without slashes at their ends: what List and Watch take.
const (
	NetworksDir = "networks"
	VNIsDir     = "vnis"
	NodesDir    = "nodes"
	VTEPsDir    = "vteps"
	NodeRevsDir = "revs/nodes"
	RecallDir   = "recall"

	// ClusterPath is the sentinel that says "you can read this".
	ClusterPath = "cluster"

	leasesDir    = "leases"
	endpointsDir = "endpoints"
	revsDir      = "revs"
	kemDir       = "kem"
	// nodesRev is why no network may be called "nodes": revs/nodes/ holds the revisions of node records.
	nodesRev = "nodes"
)

// NetworkPath is the record of a network.
func NetworkPath(name string) string { return NetworksDir + "/" + name }

// VNIPath is the lease of a VNI.
func VNIPath(vni overlay.VNI) string { return VNIsDir + "/" + strconv.FormatUint(uint64(vni), 10) }

// NodePath is the record of a node.
func NodePath(name string) string { return NodesDir + "/" + name }

// VTEPPath is the lease of a VTEP address.
func VTEPPath(a netip.Addr) string { return VTEPsDir + "/" + a.String() }

// LeasesDir holds the address leases of a network.
func LeasesDir(network string) string { return leasesDir + "/" + network }

// LeasePath is the lease of one address of a network.
func LeasePath(network string, a netip.Addr) string { return LeasesDir(network) + "/" + a.String() }

// EndpointsPath is the record of what a node has on a network.
func EndpointsPath(node, network string) string { return endpointsDir + "/" + node + "/" + network }

// EndpointsDir holds a node's endpoint records.
func EndpointsDir(node string) string { return endpointsDir + "/" + node }

// RevsDir holds the revisions of the endpoint records of a network, one key per node.
func RevsDir(network string) string { return revsDir + "/" + network }

// RevPath is the revision of EndpointsPath(node, network).
func RevPath(network, node string) string { return RevsDir(network) + "/" + node }

// NodeRevPath is the revision of NodePath(node).
func NodeRevPath(node string) string { return NodeRevsDir + "/" + node }

// RecallPath asks the nodes on a network for their spare addresses.
func RecallPath(network string) string { return RecallDir + "/" + network }

// KEMDir holds what other nodes encapsulated to a node, one key per sender.
func KEMDir(to string) string { return kemDir + "/" + to }

// KEMPath is what from encapsulated to the node to.
func KEMPath(to, from string) string { return KEMDir(to) + "/" + from }

// name is what one element of a path may look like: Docker's grammar for names, at most 128 bytes.
var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// ParseNetworkPath is the inverse of NetworkPath. Like all parsers here it refuses a path that the other function
// would not make.
func ParseNetworkPath(path string) (string, error) { return oneName(NetworksDir, path) }

// ParseNodePath is the inverse of NodePath.
func ParseNodePath(path string) (string, error) { return oneName(NodesDir, path) }

// ParseNodeRevPath is the inverse of NodeRevPath.
func ParseNodeRevPath(path string) (string, error) { return oneName(NodeRevsDir, path) }

// ParseRecallPath is the inverse of RecallPath.
func ParseRecallPath(path string) (string, error) { return oneName(RecallDir, path) }

// ParseEndpointsPath is the inverse of EndpointsPath.
func ParseEndpointsPath(path string) (node, network string, err error) {
	return twoNames(endpointsDir, path)
}

// ParseRevPath is the inverse of RevPath.
func ParseRevPath(path string) (network, node string, err error) {
	network, node, err = twoNames(revsDir, path)
	if err == nil && network == nodesRev {
		return "", "", odd(path)
	}
	return network, node, err
}

// ParseVNIPath is the inverse of VNIPath.
func ParseVNIPath(path string) (overlay.VNI, error) {
	s, ok := strings.CutPrefix(path, VNIsDir+"/")
	n, err := strconv.ParseUint(s, 10, 24)
	if !ok || err != nil || n == 0 || VNIPath(overlay.VNI(n)) != path {
		return 0, odd(path)
	}
	return overlay.VNI(n), nil
}

// ParseVTEPPath is the inverse of VTEPPath.
func ParseVTEPPath(path string) (netip.Addr, error) {
	s, ok := strings.CutPrefix(path, VTEPsDir+"/")
	a, err := netip.ParseAddr(s)
	if !ok || err != nil || a.Zone() != "" || VTEPPath(a) != path {
		return netip.Addr{}, odd(path)
	}
	return a, nil
}

// ParseLeasePath is the inverse of LeasePath.
func ParseLeasePath(path string) (network string, a netip.Addr, err error) {
	rest, ok := strings.CutPrefix(path, leasesDir+"/")
	network, s, found := strings.Cut(rest, "/")
	a, err = netip.ParseAddr(s)
	if !ok || !found || err != nil || a.Zone() != "" || !name.MatchString(network) || LeasePath(network, a) != path {
		return "", netip.Addr{}, odd(path)
	}
	return network, a, nil
}

func oneName(dir, path string) (string, error) {
	s, ok := strings.CutPrefix(path, dir+"/")
	if !ok || !name.MatchString(s) {
		return "", odd(path)
	}
	return s, nil
}

func twoNames(dir, path string) (string, string, error) {
	rest, ok := strings.CutPrefix(path, dir+"/")
	a, b, found := strings.Cut(rest, "/")
	if !ok || !found || !name.MatchString(a) || !name.MatchString(b) {
		return "", "", odd(path)
	}
	return a, b, nil
}

func odd(path string) error { return fmt.Errorf("parse key %q: not a key that weft makes", path) }
