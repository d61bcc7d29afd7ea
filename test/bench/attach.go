package main

import (
	"context"
	"fmt"
	"time"
)

// attachTarget is what the first reply must come within, by the median, in milliseconds: half of what a person notices,
// and a ninth of what Docker Swarm takes on this class of machine.
const attachTarget = 50

// pause is between two attaches: time for the detach before to be over and done, as on a host that is not flooded.
const pause = 400 * time.Millisecond

// series collects attaches by kind of network.
type series map[string][]attached

func (s series) of(kind string, f func(attached) float64) []float64 {
	var out []float64
	for _, a := range s[kind] {
		out = append(out, f(a))
	}
	return out
}

func process(a attached) float64 { return a.Process }
func reply(a attached) float64   { return a.Reply }
func whole(a attached) float64   { return a.Finished }

func measureAttach(ctx context.Context, b *bench) error {
	return b.inLab(ctx, 3, func(s *stage) error {
		pairs, err := s.pairs(ctx)
		if err != nil {
			return err
		}
		command, call := series{}, series{}
		for i := range 5 * s.rounds {
			for _, p := range pairs {
				if err := s.attachBoth(ctx, p.kind, toProbe{Network: p.network.Name, Target: p.target()}, command, call); err != nil {
					return err
				}
			}
			if (i+1)%5 == 0 {
				s.say("  warm attaches: %d of %d", i+1, 5*s.rounds)
			}
		}
		coldCommand, coldCall := series{}, series{}
		for i := range s.rounds {
			for _, kind := range kinds {
				if err := s.cold(ctx, kind, "run", coldCommand); err != nil {
					return err
				}
				if err := s.cold(ctx, kind, "attach", coldCall); err != nil {
					return err
				}
			}
			s.say("  first attaches of a network on the host: %d of %d", i+1, s.rounds)
		}
		start, err := ask[[]float64](s.n1(), "start", 20)
		if err != nil {
			return err
		}
		s.attachRows("warm", command, call)
		s.attachRows("first on host", coldCommand, coldCall)
		b.report.add("attach", "for comparison: `weft version`", "ms", start...)
		return nil
	})
}

// attachBoth makes one attach by command and one by API call.
func (s *stage) attachBoth(ctx context.Context, kind string, to toProbe, command, call series) error {
	for _, way := range []struct {
		op   string
		into series
	}{{"run", command}, {"attach", call}} {
		a, err := ask[attached](s.n1(), way.op, to)
		if err != nil {
			return err
		}
		way.into[kind] = append(way.into[kind], a)
		if err := s.settle(ctx, pause); err != nil {
			return err
		}
	}
	return nil
}

// cold makes a network with an endpoint on the far host only, attaches here, and removes it all.
func (s *stage) cold(ctx context.Context, kind, op string, into series) error {
	n, err := s.network(kind == encrypted)
	if err != nil {
		return err
	}
	// The hand's other endpoints are held by it as well, so this one is held by a hand of its own.
	h, err := s.startHand(ctx, "n2")
	if err != nil {
		return err
	}
	defer h.close()
	there, err := s.resident(h, n.Name, "there")
	if err != nil {
		return err
	}
	if err := s.settle(ctx, time.Second); err != nil {
		return err
	}
	a, err := ask[attached](s.n1(), op, toProbe{Network: n.Name, Target: there.Address.Addr()})
	if err != nil {
		return err
	}
	into[kind] = append(into[kind], a)
	if err := s.release(h); err != nil {
		return err
	}
	if err := s.settle(ctx, pause); err != nil { // until n1 knows
		return err
	}
	_, err = ask[nothing](s.n1(), "rmnetwork", n.Name)
	return err
}

func (s *stage) attachRows(when string, command, call series) {
	for _, kind := range kinds {
		name := kind + ", " + when + ": "
		r := &s.report
		r.add("attach", name+"command → reply", "ms", command.of(kind, reply)...).below(attachTarget)
		r.add("attach", name+"command → program runs", "ms", command.of(kind, process)...)
		r.add("attach", name+"command → detached, ended", "ms", command.of(kind, whole)...)
		r.add("attach", name+"API call → reply", "ms", call.of(kind, reply)...).below(attachTarget)
		r.add("attach", name+"API call → answer", "ms", call.of(kind, process)...)
		for _, way := range []struct {
			name string
			s    series
		}{{"command", command}, {"API", call}} {
			r.add("attach", name+way.name+", replies later than 0.5 s", fmt.Sprintf("of %d", len(way.s[kind])), late(way.s.of(kind, reply)))
		}
	}
}

// late counts replies that cannot be explained by work: the echo before them was lost, and something waited for a
// timer, as the kernel does for 1 s between two ARP requests.
func late(replies []float64) float64 {
	n := 0
	for _, v := range replies {
		if v > 500 {
			n++
		}
	}
	return float64(n)
}

// measureNames sees from an endpoint on n2 when a new one on n1 is there, by name and by ping.
func measureNames(ctx context.Context, b *bench) error {
	return b.inLab(ctx, 3, func(s *stage) error {
		pairs, err := s.pairs(ctx)
		if err != nil {
			return err
		}
		resolved, replied := map[string][]float64{}, map[string][]float64{}
		for i := range 4 * s.rounds {
			for _, p := range pairs {
				start, seen, err := s.named(ctx, p, i)
				if err != nil {
					return err
				}
				resolved[p.kind] = append(resolved[p.kind], ms(start, seen.Resolved))
				replied[p.kind] = append(replied[p.kind], ms(start, seen.Reply))
			}
			if (i+1)%5 == 0 {
				s.say("  new names: %d of %d", i+1, 4*s.rounds)
			}
		}
		for _, kind := range kinds {
			b.report.add("names", kind+": API call → name resolves on n2", "ms", resolved[kind]...)
			b.report.add("names", kind+": API call → it answers n2", "ms", replied[kind]...)
		}
		return nil
	})
}

// named attaches one endpoint on n1 while n2 looks for its name. An endpoint stays until the end of the measure: the next has
// another name.
func (s *stage) named(ctx context.Context, p pair, i int) (start int64, seen nameSeen, err error) {
	name := numbered("new", i)
	if _, err = ask[nothing](s.n2(), "watchname", toName{NetNS: p.b.NetNS, Server: p.network.Gateway, Name: name + "." + p.network.Name}); err != nil {
		return 0, seen, err
	}
	if err = s.settle(ctx, pause); err != nil {
		return 0, seen, err
	}
	held, err := s.hold(s.n1(), p.network.Name, name, 1)
	if err != nil {
		return 0, seen, err
	}
	seen, err = ask[nameSeen](s.n2(), "named", nothing{})
	return held.Start, seen, err
}
