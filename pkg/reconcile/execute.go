package reconcile

import (
	"context"
	"errors"
	"fmt"

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

// link names a link inside a namespace.
type link struct{ ns, name string }

// Execute applies ops in order and returns how many succeeded and what failed.
//
// It fails closed: when a namespace, a fence, a WireGuard device or one of the links that a network stands on cannot be
// made, nothing later of that group runs, nor of the groups that depend on it; a failure in the shared group "" stops
// all groups. When an endpoint's own veth cannot be made, only what stands on that veth is left out. Removals are always
// tried: they never open anything. It stops early only when ctx ends.
func Execute(ctx context.Context, depends map[string][]string, ops []kstate.Op, apply func(context.Context, kstate.Op) error) (applied int, failed []OpError) {
	blocked := map[string]error{}
	broken := map[link]error{}
	for _, op := range ops {
		if err := ctx.Err(); err != nil {
			return applied, append(failed, OpError{Op: op, Err: err, Skipped: true})
		}
		if err := obstacle(op, depends, blocked, broken); err != nil {
			failed = append(failed, OpError{Op: op, Err: err, Skipped: true})
			continue
		}
		if err := apply(ctx, op); err != nil {
			failed = append(failed, OpError{Op: op, Err: err})
			note(op, err, blocked, broken)
			continue
		}
		applied++
	}
	return applied, failed
}

// obstacle is the earlier failure because of which op must not run, nil if there is none.
func obstacle(op kstate.Op, depends map[string][]string, blocked map[string]error, broken map[link]error) error {
	if op.Verb == kstate.Remove {
		return nil
	}
	for _, g := range append([]string{op.Group, ""}, depends[op.Group]...) {
		if err := blocked[g]; err != nil {
			return err
		}
	}
	return broken[link{op.Item.Key().NS, op.Item.On()}]
}

// note records what a failure of op stands in the way of.
func note(op kstate.Op, err error, blocked map[string]error, broken map[link]error) {
	if op.Verb == kstate.Remove {
		return
	}
	switch it := op.Item.(type) {
	case kstate.WGPeer, kstate.ForeignRule:
		return // without its peer a node is unreachable, without that rule egress is: both fail closed by themselves
	case kstate.Link:
		broken[link{it.NS, it.Name}] = err
		if it.PeerName != "" {
			broken[link{it.PeerNS, it.PeerName}] = err
		}
		if it.Kind == kstate.KindVeth {
			return
		}
	case kstate.NetNS:
		if op.Group == "" {
			return // an endpoint's reference
		}
	}
	if op.Item.Stage() <= kstate.StageWireGuard && blocked[op.Group] == nil {
		blocked[op.Group] = err
	}
}

// Join is the errors of failed operations as one, nil for none.
func Join(failed []OpError) error {
	errs := make([]error, len(failed))
	for i, f := range failed {
		errs[i] = f
	}
	return errors.Join(errs...)
}
