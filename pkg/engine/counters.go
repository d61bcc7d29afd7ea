package engine

import (
	"sync"
	"sync/atomic"
)

// reason says why a frame was dropped.
type reason int

// The reasons, as counters name them.
const (
	unknownMAC   reason = iota // no VTEP is known for the destination
	malformed                  // headers that do not fit the frame, or VXLAN not as RFC 7348 has it
	notMember                  // its VTEP has nothing on the network
	foreignMAC                 // its source is not behind the VTEP it came from
	wrongVTEP                  // addressed to a VTEP that is not this node's
	congested                  // a congestion mark its transport would not understand (RFC 6040)
	notDelivered               // the kernel did not take it: the link is down, or memory short
	tooMany                    // a flood of more segments than there is room for
	reasons                    // how many there are
)

var reasonNames = [reasons]string{"unknown_mac", "malformed", "not_member", "foreign_mac", "wrong_vtep", "congested",
	"not_delivered"}

// drops counts by reason.
type drops [reasons]atomic.Uint64

// report is what was counted at all; nil for nothing.
func (d *drops) report() map[string]uint64 {
	var out map[string]uint64
	for i := range d {
		if n := d[i].Load(); n > 0 {
			if out == nil {
				out = map[string]uint64{}
			}
			out[reasonNames[i]] = n
		}
	}
	return out
}

// counters are of one network and one VTEP. One side is written by the reader of the TAP, the other by the goroutine of
// the peer: they are a cache line apart.
type counters struct {
	tx struct{ packets, bytes, frames atomic.Uint64 }
	_  [40]byte
	rx struct{ packets, bytes, frames atomic.Uint64 }
	_  [40]byte
	drops
}

// strangers counts what VTEPs send that have nothing on a network. WireGuard has proved each of them, so there are no
// more than peers.
type strangers struct {
	mu sync.Mutex
	by map[vtep]*drops
}

func (s *strangers) count(v vtep, why reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[vtep]*drops{}
	}
	if s.by[v] == nil {
		s.by[v] = new(drops)
	}
	s.by[v][why].Add(1)
}

func (s *strangers) each(f func(vtep, *drops)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v, d := range s.by {
		f(v, d)
	}
}
