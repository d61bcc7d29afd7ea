package overlay

import (
	"net/netip"
)

// LeaseState says what a leased address is used for.
type LeaseState string

// The states of a lease.
const (
	LeaseUsed       LeaseState = "used"       // an endpoint has it
	LeaseSpare      LeaseState = "spare"      // kept by a node so that the next attach needs no round trip
	LeaseQuarantine LeaseState = "quarantine" // detached a short while ago, not to be used again yet
	LeaseReserved   LeaseState = "reserved"   // taken out of allocation by an operator
)

// Lease is the right of one node to one address of a network: the key weft/leases/<network>/<address>.
type Lease struct {
	Address netip.Addr `json:"-"` // in the key
	Node    string     `json:"node"`
	// NetworkID tells the leases of a network from those of an earlier one of the same name; they do not count.
	NetworkID NetworkID  `json:"networkId,omitempty"`
	Endpoint  EndpointID `json:"endpoint,omitempty"`
	State     LeaseState `json:"state"`
	// Created and Version order leases and guard updates: Consul's CreateIndex and ModifyIndex. Zero when not stored yet.
	Created uint64 `json:"-"`
	Version uint64 `json:"-"`
}
