package ipam

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"weft/pkg/overlay"
)

// ErrUnusable says that an address that was asked for cannot be an endpoint's: outside the subnet, or special in it.
var ErrUnusable = errors.New("not usable")

// Usage counts a network's addresses at one moment, as far as this node knows.
type Usage struct {
	Usable, Used, Quarantined, Spare, Reserved int
	// SpareBy says which node holds how many spares.
	SpareBy map[string]int
}

// Free counts the addresses that nobody uses; spares are among them.
func (u Usage) Free() int { return u.Usable - u.Used - u.Quarantined - u.Reserved }

// ExhaustedError says that a network has no free address, with the numbers.
type ExhaustedError struct {
	Network string
	Subnet  netip.Prefix
	// Range bounds automatic allocation; the zero value means the whole subnet.
	Range netip.Prefix
	Usage
}

// Error is one line.
func (e *ExhaustedError) Error() string {
	where := "subnet " + e.Subnet.String()
	if e.Range.IsValid() {
		where = "range " + e.Range.String()
	}
	spare := fmt.Sprintf("%d spare", e.Spare)
	if e.Spare > 0 {
		var by []string
		for _, node := range slices.Sorted(maps.Keys(e.SpareBy)) {
			by = append(by, fmt.Sprintf("%s %d", node, e.SpareBy[node]))
		}
		spare += " (" + strings.Join(by, ", ") + ")"
	}
	return fmt.Sprintf("network %s has no free address: %s has %d usable: %d used, %d quarantined, %s, %d reserved; "+
		"detach endpoints and wait for the quarantine, or make a larger network",
		e.Network, where, e.Usable, e.Used, e.Quarantined, spare, e.Reserved)
}

// TakenError says who holds an address that was asked for. errors.Is(err, os.ErrExist) is true.
type TakenError struct {
	Network string
	Lease   overlay.Lease
	// Wait is how long its quarantine still lasts, zero when it is in none or that is another node's.
	Wait time.Duration
}

// Error is one line.
func (e *TakenError) Error() string {
	l := e.Lease
	head := fmt.Sprintf("address %s of network %s", l.Address, e.Network)
	switch {
	case l.State == overlay.LeaseQuarantine && e.Wait > 0:
		return fmt.Sprintf("%s is in quarantine for another %v (used by endpoint %s until a short while ago)", head, e.Wait.Round(time.Second), l.Endpoint)
	case l.State == overlay.LeaseQuarantine:
		return fmt.Sprintf("%s is in quarantine on node %s (used by endpoint %s until a short while ago)", head, l.Node, l.Endpoint)
	case l.State == overlay.LeaseReserved:
		return head + " is reserved by an operator"
	case l.Node == "":
		return head + " is taken by another node"
	case l.State == overlay.LeaseSpare:
		return fmt.Sprintf("%s is kept as a spare by node %s, which did not give it back", head, l.Node)
	}
	return fmt.Sprintf("%s is taken by endpoint %s on node %s", head, l.Endpoint, l.Node)
}

// Unwrap makes it an os.ErrExist.
func (e *TakenError) Unwrap() error { return os.ErrExist }
