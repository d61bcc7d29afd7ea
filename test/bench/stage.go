package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"weft/pkg/api"
	"weft/pkg/lab"
)

// stage is a lab with a hand on each of its first two hosts: n1 is where things are attached, n2 the far side.
type stage struct {
	*bench
	lab      *lab.Lab
	hands    map[string]*hand
	networks int
}

func (s *stage) open(ctx context.Context) error {
	for _, host := range []string{"n1", "n2"} {
		h, err := s.startHand(ctx, host)
		if err != nil {
			return err
		}
		s.hands[host] = h
	}
	status, err := s.lab.AgentStatus(ctx, "n1")
	if err != nil {
		return err
	}
	s.report.Backend = status.Backend
	return nil
}

func (s *stage) close() {
	for _, h := range s.hands {
		h.close()
	}
}

func (s *stage) n1() *hand { return s.hands["n1"] }
func (s *stage) n2() *hand { return s.hands["n2"] }

// network makes a network with a name of its own.
func (s *stage) network(encrypted bool) (api.Network, error) {
	s.networks++
	return ask[api.Network](s.n1(), "network", api.NetworkSpec{Name: fmt.Sprintf("bench-%d", s.networks), Encrypted: encrypted})
}

// hold attaches endpoints to a network on a host until release.
func (s *stage) hold(h *hand, network, name string, count int) (holding, error) {
	return ask[holding](h, "hold", toHold{Network: network, Name: name, Count: count})
}

// resident holds one endpoint on a host.
func (s *stage) resident(h *hand, network, name string) (api.Attachment, error) {
	held, err := s.hold(h, network, name, 1)
	if err != nil {
		return api.Attachment{}, err
	}
	return held.Endpoints[0], nil
}

func (s *stage) release(h *hand) error {
	_, err := ask[int](h, "release", nothing{})
	return err
}

// pair is a network with one endpoint on each host.
type pair struct {
	kind    string // plain or encrypted
	network api.Network
	a, b    api.Attachment // on n1 and n2
}

func (p pair) target() netip.Addr { return p.b.Address.Addr() }

// pairs makes an encrypted and a plain network with one endpoint on each host.
func (s *stage) pairs(ctx context.Context) ([]pair, error) {
	var out []pair
	for _, kind := range kinds {
		p := pair{kind: kind}
		var err error
		if p.network, err = s.network(kind == encrypted); err != nil {
			return nil, err
		}
		if p.b, err = s.resident(s.n2(), p.network.Name, kind+"-b"); err != nil {
			return nil, err
		}
		if p.a, err = s.resident(s.n1(), p.network.Name, kind+"-a"); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, s.settle(ctx, 2*time.Second)
}

const encrypted, plain = "encrypted", "plain"

var kinds = []string{encrypted, plain}

// settle waits, for what follows an attach: leases that are written, the pass that must find nothing to do.
func (s *stage) settle(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
