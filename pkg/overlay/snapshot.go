package overlay

import (
	"cmp"
	"slices"
)

// Snapshot is everything that weft knows of the cluster at one moment: records that were verified and accepted.
// It is immutable once built and may be shared between goroutines.
type Snapshot struct {
	Cluster string
	// Nodes by name, goodbyes included.
	Nodes map[string]Node
	// Networks by name, tombstones included.
	Networks map[string]Network
	// Endpoints holds every node's set, this node's own included, ordered by network, then node.
	Endpoints []EndpointSet
	// Complete says that every source has delivered once since this store was made, so absence may be believed.
	Complete bool
}

// NetworkByID finds a live network; ok is false when there is none.
func (s *Snapshot) NetworkByID(id NetworkID) (n Network, ok bool) {
	for _, n := range s.Networks {
		if n.ID == id && n.Alive() {
			return n, true
		}
	}
	return Network{}, false
}

// On returns the non-empty endpoint sets of one network, ordered by node. Sets of nodes that said goodbye, or that
// are unknown, are left out.
func (s *Snapshot) On(id NetworkID) []EndpointSet {
	var out []EndpointSet
	for _, set := range s.Endpoints {
		n, known := s.Nodes[set.Node]
		if set.NetworkID == id && len(set.Endpoints) > 0 && known && n.Present() {
			out = append(out, set)
		}
	}
	slices.SortFunc(out, func(a, b EndpointSet) int { return cmp.Compare(a.Node, b.Node) })
	return out
}
