package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"weft/pkg/kstate"
)

// setIDs numbers sets within a batch. The library's own numbers are not safe to take from two connections.
var setIDs atomic.Uint32

// nft runs one batch. After an error the connection may hold answers that nobody waits for, so it is opened anew.
func (k *Kernel) nft(sp *space, f func() error) error {
	err := f()
	if err == nil {
		err = sp.nft.Flush()
	}
	if err != nil {
		k.spaces.drop(sp.name)
	}
	return err
}

func table(f kstate.Family) *nftables.Table {
	return &nftables.Table{Name: kstate.TableName, Family: families[f]}
}

// addNFT queues what adds or changes an item. The table is made along with whatever is put into it.
func (s *space) addNFT(item kstate.Item) error {
	switch it := item.(type) {
	case kstate.Table:
		s.nft.AddTable(table(it.Family))
		return nil
	case kstate.NFSet:
		s.nft.AddTable(table(it.Family))
		return s.addSet(it)
	case kstate.Elem:
		return s.elem(it, s.nft.SetAddElements)
	case kstate.Chain:
		return s.addChain(it)
	case kstate.ForeignRule:
		return s.addForeign(it)
	}
	return fmt.Errorf("items of type %T cannot be made", item)
}

func (s *space) removeNFT(item kstate.Item) error {
	switch it := item.(type) {
	case kstate.Table:
		s.nft.DelTable(table(it.Family))
		return nil
	case kstate.NFSet:
		s.nft.DelSet(&nftables.Set{Table: table(it.Family), Name: it.Name})
		return nil
	case kstate.Elem:
		return s.elem(it, s.nft.SetDeleteElements)
	case kstate.Chain:
		c := &nftables.Chain{Name: it.Name, Table: table(it.Family)}
		s.nft.FlushChain(c)
		s.nft.DelChain(c)
		return nil
	case kstate.ForeignRule:
		return s.removeForeign(it)
	}
	return fmt.Errorf("items of type %T cannot be removed", item)
}

func (s *space) addSet(it kstate.NFSet) error {
	t, err := parseSetType(it.Type)
	if err != nil {
		return err
	}
	return s.nft.AddSet(&nftables.Set{Table: table(it.Family), Name: it.Name, ID: setIDs.Add(1), KeyType: t.key(),
		Interval: t.interval, KeyByteOrder: binaryutil.BigEndian}, nil)
}

// elem adds or removes an element, whose form the set's type decides.
func (s *space) elem(it kstate.Elem, f func(*nftables.Set, []nftables.SetElement) error) error {
	set, err := s.nft.GetSetByName(table(it.Family), it.Set)
	if err != nil {
		return fmt.Errorf("find set %s: %w", it.Set, err)
	}
	t, ok := typeOf(set)
	if !ok {
		return fmt.Errorf("set %s is not of a type that weft makes", it.Set)
	}
	elems, err := t.elements(it.Value)
	if err != nil {
		return err
	}
	return f(set, elems)
}

// addChain queues a chain with all its rules, which replace the old ones in the same instant. Named counters are made
// with it; those that are there keep their counts.
func (s *space) addChain(it kstate.Chain) error {
	rules, err := compileRules(it.Family, it.Rules)
	if err != nil {
		return err
	}
	c, err := chainOf(it)
	if err != nil {
		return err
	}
	s.nft.AddTable(c.Table)
	s.nft.AddChain(c)
	for _, r := range rules {
		for _, name := range r.counters {
			s.nft.AddObj(&nftables.NamedObj{Table: c.Table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
		}
	}
	s.nft.FlushChain(c)
	for _, r := range rules {
		exprs, err := s.withPorts(c.Table, r)
		if err != nil {
			return err
		}
		s.nft.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: exprs, UserData: userdata.AppendString(nil, userdata.TypeComment, r.text)})
	}
	return nil
}

func chainOf(it kstate.Chain) (*nftables.Chain, error) {
	c := &nftables.Chain{Name: it.Name, Table: table(it.Family), Type: nftables.ChainType(it.Type),
		Priority: nftables.ChainPriorityRef(nftables.ChainPriority(it.Priority))}
	for num, name := range hooks {
		if name == it.Hook {
			c.Hooknum = nftables.ChainHookRef(nftables.ChainHook(num))
		}
	}
	policy := nftables.ChainPolicyAccept
	if it.Policy == "drop" {
		policy = nftables.ChainPolicyDrop
	}
	c.Policy = &policy
	if c.Hooknum == nil || it.Policy != "drop" && it.Policy != "accept" {
		return nil, fmt.Errorf("chain %s: hook %q or policy %q is unknown", it.Name, it.Hook, it.Policy)
	}
	return c, nil
}

// withPorts queues the anonymous set of a rule and returns the expressions that refer to it.
func (s *space) withPorts(t *nftables.Table, r rule) ([]expr.Any, error) {
	if r.ports == nil {
		return r.exprs, nil
	}
	set := &nftables.Set{Table: t, Name: "__set%d", ID: setIDs.Add(1), Anonymous: true, Constant: true, KeyType: nftables.TypeInetService}
	var elems []nftables.SetElement
	for _, p := range r.ports {
		elems = append(elems, nftables.SetElement{Key: binaryutil.BigEndian.PutUint16(p)})
	}
	if err := s.nft.AddSet(set, elems); err != nil {
		return nil, err
	}
	var out []expr.Any
	for _, e := range r.exprs {
		if l, ok := e.(*expr.Lookup); ok && l.SetName == "" {
			e = &expr.Lookup{SourceRegister: l.SourceRegister, SetName: set.Name, SetID: set.ID}
		}
		out = append(out, e)
	}
	return out, nil
}

// addForeign puts a rule of ours at the head of another program's chain, once.
func (s *space) addForeign(it kstate.ForeignRule) error {
	exprs, err := compileForeign(it.Rule)
	if err != nil {
		return err
	}
	if err := s.removeForeign(it); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.nft.InsertRule(&nftables.Rule{Table: filterTable, Chain: &nftables.Chain{Name: it.Chain, Table: filterTable}, Exprs: exprs,
		UserData: userdata.AppendString(nil, userdata.TypeComment, foreignMark+it.Rule)})
	return nil
}

// removeForeign queues the removal of our rules with this comment. What Observe showed as altered goes by the comment too.
func (s *space) removeForeign(it kstate.ForeignRule) error {
	if _, err := s.nft.ListChain(filterTable, it.Chain); err != nil {
		return fmt.Errorf("find chain %s of table ip filter: %w", it.Chain, fs.ErrNotExist)
	}
	rules, err := s.nft.GetRules(filterTable, &nftables.Chain{Name: it.Chain})
	if err != nil {
		return err
	}
	for _, r := range rules {
		if text, ok := foreignText(r); !ok || text != it.Rule && altered+text != it.Rule {
			continue
		}
		r.Chain.Table = filterTable
		if err := s.nft.DelRule(r); err != nil {
			return err
		}
	}
	return nil
}

// Counters returns the packet counts of the named counters in our tables, summed by name over tables and namespaces.
// They start at zero when the counter's table is made.
func (k *Kernel) Counters(ctx context.Context) (map[string]uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o := &observer{k: k, ctx: ctx, state: kstate.NewState()}
	if err := o.open(); err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	sum := map[string]uint64{}
	for _, v := range o.views {
		if endpoint(v.name) {
			continue
		}
		if err := v.counters(sum); err != nil && o.exists(v.name) {
			return nil, fmt.Errorf("read counters of %s: %w", show(v.name), err)
		}
	}
	return sum, nil
}

func (s *space) counters(sum map[string]uint64) error {
	tables, err := s.nft.ListTables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		if t.Name != kstate.TableName {
			continue
		}
		objs, err := s.nft.GetNamedObjects(t)
		if err != nil {
			return err
		}
		for _, obj := range objs {
			o, ok := obj.(*nftables.NamedObj)
			if !ok || o.Type != nftables.ObjTypeCounter {
				continue
			}
			if c, ok := o.Obj.(*expr.Counter); ok {
				sum[o.Name] += c.Packets
			}
		}
	}
	return nil
}
