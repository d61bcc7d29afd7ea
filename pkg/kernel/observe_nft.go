package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/pkg/kstate"
)

// altered begins the text of a rule that is not, or is no longer, what its comment says. No wanted rule begins so, and
// therefore its chain is replaced.
const altered = "altered: "

var families = map[kstate.Family]nftables.TableFamily{
	kstate.Inet: nftables.TableFamilyINet, kstate.BridgeFamily: nftables.TableFamilyBridge, kstate.IPv4Family: nftables.TableFamilyIPv4,
}

func familyName(f nftables.TableFamily) kstate.Family {
	for name, n := range families {
		if n == f {
			return name
		}
	}
	return kstate.Family(fmt.Sprintf("family%d", f))
}

var hooks = []string{unix.NF_INET_PRE_ROUTING: "prerouting", unix.NF_INET_LOCAL_IN: "input", unix.NF_INET_FORWARD: "forward",
	unix.NF_INET_LOCAL_OUT: "output", unix.NF_INET_POST_ROUTING: "postrouting"}

// errMoved says that the rule set changed between two reads of it.
var errMoved = errors.New("rule set changed")

// tables reads what nftables has of ours. It takes several dumps; the generation number tells whether they belong
// together.
func (o *observer) tables(v *view) error {
	var items []kstate.Item
	for range dumpTries {
		before, err := v.generation()
		if err != nil {
			return err
		}
		items, err = v.ruleset()
		after, gerr := v.generation() // also after an error: what vanishes between two dumps is one
		if gerr != nil {
			return gerr
		}
		if before == after {
			if err != nil {
				return fmt.Errorf("read nftables: %w", err)
			}
			for _, it := range items {
				o.put(v.name, it)
			}
			return nil
		}
		if err := o.ctx.Err(); err != nil {
			return err
		}
	}
	return fmt.Errorf("read nftables: %w during each of %d reads", errMoved, dumpTries)
}

// generation counts the changes of the namespace's rule set (NFT_MSG_GETGEN).
func (s *space) generation() (uint32, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: s.nfgen}
	req.AddData(&nl.Nfgenmsg{})
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return 0, fmt.Errorf("read nftables generation: %w", err)
	}
	var gen uint32
	for _, m := range msgs {
		if len(m) < nl.SizeofNfgenmsg {
			continue
		}
		_ = eachAttr(m[nl.SizeofNfgenmsg:], func(kind uint16, v []byte) {
			if kind == unix.NFTA_GEN_ID && len(v) == 4 {
				gen = binary.BigEndian.Uint32(v)
			}
		})
	}
	return gen, nil
}

// ruleset reads our tables and our rules in others'.
func (s *space) ruleset() ([]kstate.Item, error) {
	tables, err := s.nft.ListTables()
	if err != nil {
		return nil, err
	}
	foreign := func(t *nftables.Table) bool {
		return s.name == kstate.Host && t.Name == "filter" && t.Family == nftables.TableFamilyIPv4
	}
	tables = slices.DeleteFunc(tables, func(t *nftables.Table) bool { return t.Name != kstate.TableName && !foreign(t) })
	if len(tables) == 0 {
		return nil, nil
	}
	chains, err := s.nft.ListChains()
	if err != nil {
		return nil, err
	}
	var items []kstate.Item
	for _, t := range tables {
		if foreign(t) {
			rules, err := s.foreignRules(chains)
			if err != nil {
				return nil, err
			}
			items = append(items, rules...)
			continue
		}
		own, err := s.table(t, chains)
		if err != nil {
			return nil, err
		}
		items = append(items, own...)
	}
	return items, nil
}

// table reads one table of ours.
func (s *space) table(t *nftables.Table, chains []*nftables.Chain) ([]kstate.Item, error) {
	family := familyName(t.Family)
	items := []kstate.Item{kstate.Table{NS: s.name, Family: family}}
	sets, err := s.nft.GetSets(t)
	if err != nil {
		return nil, err
	}
	anonymous := map[string]*nftables.Set{}
	for _, set := range sets {
		if set.Anonymous {
			anonymous[set.Name] = set
			continue
		}
		own, err := s.set(family, set)
		if err != nil {
			return nil, err
		}
		items = append(items, own...)
	}
	for _, c := range chains {
		if c.Table.Name != t.Name || c.Table.Family != t.Family {
			continue
		}
		it := chainItem(s.name, family, c)
		rules, err := s.nft.GetRules(t, c)
		if err != nil {
			return nil, err
		}
		var lines []string
		for _, r := range rules {
			line, err := s.ruleText(family, r, anonymous)
			if err != nil {
				return nil, err
			}
			lines = append(lines, line)
		}
		it.Rules = strings.Join(lines, "\n")
		items = append(items, it)
	}
	return items, nil
}

func (s *space) set(family kstate.Family, set *nftables.Set) ([]kstate.Item, error) {
	it := kstate.NFSet{NS: s.name, Family: family, Name: set.Name, Type: altered + set.KeyType.Name}
	t, ok := typeOf(set)
	if !ok {
		return []kstate.Item{it}, nil
	}
	it.Type = t.name
	elems, err := s.nft.GetSetElements(set)
	if err != nil {
		return nil, err
	}
	items := []kstate.Item{it}
	for _, v := range t.values(elems) {
		items = append(items, kstate.Elem{NS: s.name, Family: family, Set: set.Name, Value: v})
	}
	return items, nil
}

func chainItem(ns string, family kstate.Family, c *nftables.Chain) kstate.Chain {
	it := kstate.Chain{NS: ns, Family: family, Name: c.Name, Type: string(c.Type), Policy: "accept"}
	if c.Hooknum != nil && int(*c.Hooknum) < len(hooks) {
		it.Hook = hooks[*c.Hooknum]
	}
	if c.Priority != nil {
		it.Priority = int(*c.Priority)
	}
	if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		it.Policy = "drop"
	}
	return it
}

// ruleText is the text that a rule's comment holds, if the rule does what it says.
func (s *space) ruleText(family kstate.Family, r *nftables.Rule, anonymous map[string]*nftables.Set) (string, error) {
	text, ok := comment(r.UserData)
	if !ok {
		return altered + "rule without comment", nil
	}
	want, err := compileRule(family, text)
	if err != nil {
		return altered + strings.ReplaceAll(text, "\n", " "), nil
	}
	have := slices.Clone(r.Exprs)
	if want.ports != nil {
		same, err := s.resolvePorts(have, want.ports, anonymous)
		if err != nil {
			return "", err
		}
		if !same {
			return altered + text, nil
		}
	}
	if !sameExprs(want.exprs, have) {
		return altered + text, nil
	}
	return text, nil
}

// resolvePorts finds the anonymous set that a rule looks a port up in, compares it and takes its name, which the kernel
// chose, out of the expression.
func (s *space) resolvePorts(have []expr.Any, ports []uint16, anonymous map[string]*nftables.Set) (bool, error) {
	for i, e := range have {
		l, ok := e.(*expr.Lookup)
		if !ok || anonymous[l.SetName] == nil {
			continue
		}
		elems, err := s.nft.GetSetElements(anonymous[l.SetName])
		if err != nil {
			return false, err
		}
		var found []uint16
		for _, e := range elems {
			if len(e.Key) < 2 {
				return false, nil
			}
			found = append(found, binary.BigEndian.Uint16(e.Key))
		}
		slices.Sort(found)
		plain := *l
		plain.SetName = ""
		have[i] = &plain
		return slices.Equal(found, ports), nil
	}
	return false, nil
}

// sameExprs compares compiled expressions with those that the kernel reports, which lack identifiers that only count
// within a batch, and have counts instead of zeros.
func sameExprs(want, have []expr.Any) bool {
	if len(want) != len(have) {
		return false
	}
	for i := range want {
		if !reflect.DeepEqual(normal(want[i]), normal(have[i])) {
			return false
		}
	}
	return true
}

func normal(e expr.Any) expr.Any {
	switch e := e.(type) {
	case *expr.Lookup:
		return &expr.Lookup{SourceRegister: e.SourceRegister, SetName: e.SetName, Invert: e.Invert, IsDestRegSet: e.IsDestRegSet, DestRegister: e.DestRegister}
	case *expr.Counter:
		return &expr.Counter{}
	case *expr.NAT:
		n := *e
		n.RegAddrMax, n.Specified = 0, false // a single address: the kernel repeats it as the end of a range
		return &n
	}
	return e
}
