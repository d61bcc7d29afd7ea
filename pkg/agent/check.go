package agent

import (
	"context"
	"fmt"
	"strings"

	"weft/pkg/api"
	"weft/pkg/kstate"
	"weft/pkg/overlay"
	"weft/pkg/plan"
)

// CheckEndpoint implements apiserver.Checks: what the next pass would change of this endpoint. It looks for itself and
// not at the last pass, which may be from before the damage.
func (a *Agent) CheckEndpoint(ctx context.Context, ref string) (api.Check, error) {
	e, err := a.local(ref)
	if err != nil {
		return api.Check{}, err
	}
	c := api.Check{Endpoint: a.localEndpoint(e)}
	if e.Leaving {
		c.Problems = []string{"it is being detached"}
		return c, nil
	}
	if why := gone(e); why != "" {
		c.Problems = []string{why}
		return c, nil
	}
	want, _ := a.want()
	if want == nil {
		return c, apiErr(api.Unavailable, "nothing can be decided yet: this node has not joined a cluster")
	}
	have, err := a.observe(ctx, want)
	if err != nil {
		return c, err
	}
	if !want.Has(kstate.NetNS{Name: e.NetNS}.Key()) {
		c.Problems = append(c.Problems, fmt.Sprintf("weft does not build it: see `weft status`, network %s", e.Network))
	}
	for _, op := range plan.Diff(want, have) {
		if concerns(op, e) {
			c.Problems = append(c.Problems, complaint(op))
		}
	}
	return c, nil
}

// concerns says whether an operation mends this endpoint or what its network cannot do without.
func concerns(op kstate.Op, e overlay.LocalEndpoint) bool {
	port, k := kstate.EndpointLink(e.ID), op.Item.Key()
	switch {
	case k.NS == e.NetNS, op.Item.On() == port, k.Kind == "link" && k.Name == port, k.Kind == "netns" && k.Name == e.NetNS:
		return true
	case op.Group != string(e.NetworkID) || op.Verb == kstate.Remove:
		return false
	}
	if n, ok := op.Item.(kstate.Neigh); ok {
		return n.IP == e.Address
	}
	return op.Item.Stage() <= kstate.StageWireGuard
}

// complaint words what an operation would mend.
func complaint(op kstate.Op) string {
	item := strings.ReplaceAll(op.Item.String(), "\n", "; ")
	switch op.Verb {
	case kstate.Add:
		return "missing: " + item
	case kstate.Set:
		return "changed: " + item
	}
	return "must go: " + item
}
