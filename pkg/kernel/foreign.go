package kernel

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"weft/pkg/kstate"
)

// dockerUser is the chain that Docker leaves to others, and keeps across its restarts.
const dockerUser = "DOCKER-USER"

// foreignMark begins the comment of our rules in other programs' chains.
const foreignMark = kstate.Mark + ": "

var filterTable = &nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4}

// compileForeign compiles a rule with a counter before the verdict, as iptables would have made it, so that
// `iptables -S` and `iptables-save` can still show the chain that it is in.
func compileForeign(text string) ([]expr.Any, error) {
	r, err := compileRule(kstate.IPv4Family, text)
	if err != nil {
		return nil, fmt.Errorf("compile rule %q: %w", text, err)
	}
	if len(r.counters) > 0 || r.ports != nil {
		return nil, fmt.Errorf("compile rule %q: counters and sets cannot be in another program's table", text)
	}
	last := len(r.exprs) - 1
	return slices.Insert(slices.Clone(r.exprs), last, expr.Any(&expr.Counter{})), nil
}

// foreignRules reads our rules in table ip filter.
func (s *space) foreignRules(chains []*nftables.Chain) ([]kstate.Item, error) {
	var items []kstate.Item
	for _, c := range chains {
		if !filterChain(c) || c.Name != dockerUser && c.Name != "FORWARD" {
			continue
		}
		rules, err := s.nft.GetRules(filterTable, c)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			text, ok := foreignText(r)
			if !ok {
				continue
			}
			if want, err := compileForeign(text); err != nil || !sameExprs(want, r.Exprs) {
				text = altered + text
			}
			items = append(items, kstate.ForeignRule{NS: s.name, Chain: c.Name, Rule: text})
		}
	}
	return items, nil
}

func foreignText(r *nftables.Rule) (string, bool) {
	text, ok := comment(r.UserData)
	if !ok {
		return "", false
	}
	return strings.CutPrefix(text, foreignMark)
}

func filterChain(c *nftables.Chain) bool {
	return c.Table.Name == filterTable.Name && c.Table.Family == filterTable.Family
}

// ForwardHooks names the chains of table ip filter in which an accept for the egress legs is needed, because an accept
// in a table of our own does not survive another table's drop: DOCKER-USER where Docker made it, else FORWARD where its
// policy is drop, else none.
func (k *Kernel) ForwardHooks(ctx context.Context) ([]string, error) {
	chains, err := k.hostChains(ctx)
	if err != nil {
		return nil, err
	}
	var forward []string
	for _, c := range chains {
		if !filterChain(c) {
			continue
		}
		if c.Name == dockerUser {
			return []string{dockerUser}, nil
		}
		if c.Name == "FORWARD" && drops(c) {
			forward = []string{c.Name}
		}
	}
	return forward, nil
}

// ForwardBlocked names another program's chain that drops what the host forwards and that we have no business in, so
// that egress cannot work; "" when there is none. Only a drop policy can be seen; a drop rule cannot.
func (k *Kernel) ForwardBlocked(ctx context.Context) (string, error) {
	chains, err := k.hostChains(ctx)
	if err != nil {
		return "", err
	}
	for _, c := range chains {
		relevant := c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyINet
		if c.Table.Name == kstate.TableName || filterChain(c) || !relevant || !drops(c) {
			continue
		}
		return fmt.Sprintf("chain %s of table %s %s", c.Name, familyName(c.Table.Family), c.Table.Name), nil
	}
	return "", nil
}

func drops(c *nftables.Chain) bool {
	return c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
}

func (k *Kernel) hostChains(ctx context.Context) ([]*nftables.Chain, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	sp, err := k.spaces.get(kstate.Host)
	if err != nil {
		return nil, err
	}
	chains, err := dump(ctx, sp.nft.ListChains)
	if err != nil {
		return nil, fmt.Errorf("list the host's nftables chains: %w", err)
	}
	return chains, nil
}

// comment finds the comment in a rule's user data, a list of (type, length, value).
func comment(data []byte) (string, bool) {
	for len(data) >= 2 {
		kind, n := data[0], int(data[1])
		if len(data) < 2+n {
			return "", false
		}
		if userdata.Type(kind) == userdata.TypeComment {
			return string(bytes.TrimSuffix(data[2:2+n], []byte{0})), true
		}
		data = data[2+n:]
	}
	return "", false
}
