package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Explanation is an answer with its reasons.
type Explanation struct {
	Question, Type, Rcode string
	// Answer, Authority and Additional are records in zone-file notation.
	Answer, Authority, Additional []string
	// Source is "records" for names of ours, "cache", "upstreams", "consul", "zone NAME", or "nobody".
	Source string
	// Why are sentences.
	Why []string
	// Instances are the endpoints behind the name, the ones left out included.
	Instances []Instance
}

// Instance is one endpoint behind a name.
type Instance struct {
	ID, Name, Node, Network string
	Address                 netip.Addr
	Health                  string
	Answered                bool
}

// Explain asks a question as on the listener l and says why the answer is what it is. It fails for what is no name or
// type.
func (s *Server) Explain(ctx context.Context, l Listen, name, qtype string) (Explanation, error) {
	typ, ok := dns.StringToType[strings.ToUpper(qtype)]
	if !ok {
		return Explanation{}, fmt.Errorf("type %q is not a record type as A, AAAA, SRV or PTR", qtype)
	}
	if _, ok := dns.IsDomainName(name); !ok {
		return Explanation{}, fmt.Errorf("%q is not a name", name)
	}
	if a, err := netip.ParseAddr(name); err == nil && typ == typePTR {
		if name, err = dns.ReverseAddr(a.String()); err != nil {
			return Explanation{}, err
		}
	}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), typ)
	req, err := m.Pack()
	if err != nil {
		return Explanation{}, fmt.Errorf("ask for %s: %w", name, err)
	}
	l.Network = strings.ToLower(l.Network)
	w := &worker{s: s, l: &l}
	out, ask := w.answer(nil, req, false)
	x := Explanation{Question: strings.ToLower(dns.Fqdn(name)), Type: typeName(typ)}
	if ask != nil && ask.follow != "" {
		s.follow(ctx, ask.follow)
		x.Why = append(x.Why, "the endpoints of network "+ask.follow+" were read just now: this node has none on it")
		out, ask = w.answer(nil, req, false)
	}
	if ask != nil && out == nil {
		if out, err = s.explainForward(ctx, w, &x, ask, req); err != nil {
			return x, err
		}
	} else {
		s.explainOwn(w, &x, l)
	}
	var got dns.Msg
	if err := got.Unpack(out); err != nil {
		return x, fmt.Errorf("read the answer to %s: %w", name, err)
	}
	x.Rcode = rcodeName(got.Rcode)
	x.Answer, x.Authority, x.Additional = zoneFile(got.Answer), zoneFile(got.Ns), zoneFile(got.Extra)
	return x, nil
}

func zoneFile(rrs []dns.RR) (out []string) {
	for _, rr := range rrs {
		out = append(out, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	return out
}

// explainOwn says how a name of ours was found, or that it is nobody's here.
func (s *Server) explainOwn(w *worker, x *Explanation, l Listen) {
	v, q := s.view.Load(), &w.q
	f := v.find(l.Network, q)
	switch {
	case f.is == notOurs && l.Forward:
		x.Source = "cache"
		s.explainCache(w, x, s.fwd.route(f.zone, q))
		return
	case f.is == notOurs:
		x.Source = "nobody"
		x.Why = append(x.Why, "the name is not below a zone of this listener, which passes nothing on")
		return
	}
	x.Source = "records"
	zone := text(q.name[f.apex:])
	switch {
	case f.ptr != nil:
		x.Why = append(x.Why, "the address belongs to an endpoint")
	case f.is == unknown:
		x.Why = append(x.Why, "zone "+zone+" is ours and holds no such name")
	case f.entry == nil || !f.entry.data():
		x.Why = append(x.Why, "the name exists, but has no records of its own")
	case f.apex == 0:
		x.Why = append(x.Why, "the whole name is a service, endpoint or alias of network "+f.zone.network.Name)
	default:
		x.Why = append(x.Why, fmt.Sprintf("%s is a service, endpoint or alias of network %s; %s is its zone", text(append(q.name[:f.apex:f.apex], 0)), f.zone.network.Name, zone))
	}
	if f.entry != nil {
		s.explainInstances(x, f)
	}
	s.explainLeftOut(x, f, q)
}

func (s *Server) explainInstances(x *Explanation, f found) {
	answered := 0
	for _, i := range f.entry.instances {
		if i.health.Answered() {
			answered++
		}
	}
	for _, i := range f.entry.instances {
		x.Instances = append(x.Instances, describeInstance(i, answered == 0 || i.health.Answered()))
	}
	if n := len(f.entry.instances); answered == 0 && n > 0 {
		x.Why = append(x.Why, "no instance passes its check, so all are answered")
	} else if answered < n {
		x.Why = append(x.Why, fmt.Sprintf("%d of %d instances do not pass their check and are left out", n-answered, n))
	}
}

// explainLeftOut names endpoints that would stand at the name were they not drained or on a dead node.
func (s *Server) explainLeftOut(x *Explanation, f found, q *question) {
	if f.zone == nil {
		return
	}
	rel := string(q.name[:max(f.apex, 0)])
	if f.apex == 0 {
		rel = string(q.name[:len(q.name)-1])
	}
	for _, i := range f.zone.out {
		for _, name := range i.names {
			if name == rel {
				x.Instances = append(x.Instances, describeInstance(i, false))
				x.Why = append(x.Why, fmt.Sprintf("endpoint %s on node %s is left out: %s", i.name, i.node, i.health))
			}
		}
	}
}

func describeInstance(i *instance, answered bool) Instance {
	health := string(i.health)
	if health == "" {
		health = "no check"
	}
	return Instance{ID: string(i.id), Name: i.name, Node: i.node, Network: i.network, Address: i.addr, Health: health, Answered: answered}
}

// explainForward asks others and says whom.
func (s *Server) explainForward(ctx context.Context, w *worker, x *Explanation, r *route, req []byte) (out []byte, err error) {
	x.Source = r.name
	s.explainCache(w, x, r)
	s.fwd.resolve(ctx, r, req, netip.Addr{}, false, func(b []byte) { out = b })
	if out == nil {
		return nil, errors.New("nobody answered in time")
	}
	return out, nil
}

func (s *Server) explainCache(w *worker, x *Explanation, r *route) {
	servers := "none"
	if list := s.fwd.order(r.servers()); len(list) > 0 {
		servers = strings.Trim(fmt.Sprint(list), "[]")
	}
	x.Why = append(x.Why, "the name is not ours and goes to "+r.name+" ("+servers+")")
	e := s.fwd.cache.get(w.q.key(nil, r))
	if e == nil {
		x.Why = append(x.Why, "it is not in the cache")
		return
	}
	left := time.Duration(e.expires() - s.fwd.cache.now()).Round(time.Second)
	if left > 0 {
		x.Why = append(x.Why, fmt.Sprintf("it is in the cache for another %v", left))
	} else {
		x.Why = append(x.Why, fmt.Sprintf("what the cache has is out of date since %v", -left))
	}
}
