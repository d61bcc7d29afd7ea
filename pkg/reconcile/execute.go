package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"weft/pkg/kstate"
)

// OpError is an operation that failed, or that was not tried because of an earlier failure.
type OpError struct {
	Op      kstate.Op
	Err     error
	Skipped bool // not tried: Err is the failure that it depends on
}

func (e OpError) Error() string {
	if e.Skipped {
		return fmt.Sprintf("%s: not tried: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("%s: %v", e.Op, e.Err)
}

func (e OpError) Unwrap() error { return e.Err }

// link names a link inside a namespace; without a name it is the namespace itself.
type link struct{ ns, name string }

// execution is what has failed so far in one run of Execute, and what stands on it.
type execution struct {
	depends map[string][]string
	blocked map[string]error // groups that nothing more is made of
	broken  map[link]error   // links, and namespaces of endpoints, that are not there or not as they must be
	leftSet map[string]error // groups with a link that could not be removed
	left    error            // one of these
}

// Execute applies ops in order and returns how many succeeded and what failed.
//
// It fails closed: when a namespace, a fence, a WireGuard device or one of the links that a network stands on cannot be
// made, nothing later of that group runs, nor of the groups that depend on it; a failure in the shared group "" stops
// all groups. When an endpoint's own namespace, veth or bridge port cannot be made, only what stands on it is left out:
// a port without its flags must not come up. Removals are tried whatever failed before, with one exception: the fence
// around a link that could not be removed stays. Execute stops early only when ctx ends.
func Execute(ctx context.Context, depends map[string][]string, ops []kstate.Op, apply func(context.Context, kstate.Op) error) (applied int, failed []OpError) {
	x := execution{depends: depends, blocked: map[string]error{}, broken: map[link]error{}, leftSet: map[string]error{}}
	for _, op := range ops {
		if err := ctx.Err(); err != nil {
			return applied, append(failed, OpError{Op: op, Err: err, Skipped: true})
		}
		if err := x.obstacle(op); err != nil {
			failed = append(failed, OpError{Op: op, Err: err, Skipped: true})
			x.breaks(op, err)
			continue
		}
		if err := apply(ctx, op); err != nil {
			failed = append(failed, OpError{Op: op, Err: err})
			x.note(op, err)
			continue
		}
		applied++
	}
	return applied, failed
}

// obstacle is the earlier failure because of which op must not run, nil if there is none.
func (x *execution) obstacle(op kstate.Op) error {
	if op.Verb == kstate.Remove {
		return x.guards(op)
	}
	for _, g := range append([]string{op.Group, ""}, x.depends[op.Group]...) {
		if err := x.blocked[g]; err != nil {
			return err
		}
	}
	ns := op.Item.Key().NS
	err := x.broken[link{ns, op.Item.On()}]
	if err == nil {
		err = x.broken[link{ns, ""}]
	}
	if l, ok := op.Item.(kstate.Link); ok && err == nil && l.PeerName != "" {
		err = x.broken[link{l.PeerNS, ""}]
	}
	return err
}

// guards is the failure to remove a link because of which a part of its fence must stay: of the link's own group, or of
// what all groups share.
func (x *execution) guards(op kstate.Op) error {
	switch op.Item.(type) {
	case kstate.Elem:
		return x.leftSet[op.Group]
	case kstate.Table, kstate.NFSet, kstate.Chain:
		if op.Group == "" || op.Group == kstate.TransitGroup {
			return x.left
		}
		return x.leftSet[op.Group]
	}
	return nil
}

// note records what a failure of op stands in the way of.
func (x *execution) note(op kstate.Op, err error) {
	if op.Verb == kstate.Remove {
		if _, ok := op.Item.(kstate.Link); ok {
			x.leftSet[op.Group], x.left = err, err
		}
		return
	}
	if !x.breaks(op, err) && op.Item.Stage() <= kstate.StageWireGuard && x.blocked[op.Group] == nil {
		x.blocked[op.Group] = err
	}
}

// breaks records what cannot stand on the item of an op that was not done. alone says that this is all: the item's group
// can do without it.
func (x *execution) breaks(op kstate.Op, err error) (alone bool) {
	if op.Verb == kstate.Remove {
		return true
	}
	switch it := op.Item.(type) {
	case kstate.WGPeer, kstate.ForeignRule:
		return true // without its peer a node is unreachable, without that rule egress is: both fail closed by themselves
	case kstate.Link:
		x.broken[link{it.NS, it.Name}] = err
		if it.PeerName != "" {
			x.broken[link{it.PeerNS, it.PeerName}] = err
		}
		return it.Kind == kstate.KindVeth
	case kstate.Port:
		x.broken[link{it.NS, it.Link}] = err
		return true
	case kstate.NetNS:
		x.broken[link{it.Name, ""}] = err
		return strings.HasPrefix(it.Name, kstate.EndpointPrefix)
	}
	return false
}

// Join is the errors of failed operations as one, nil for none.
func Join(failed []OpError) error {
	errs := make([]error, len(failed))
	for i, f := range failed {
		errs[i] = f
	}
	return errors.Join(errs...)
}
