package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"weft/consul"
	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/overlay"
)

// Consul carries the records between nodes. When it does not, because its servers are away or its gossip has lost a
// node, agents that share a network ask each other directly, through that network, for the one record they need: the
// other's endpoints on it. After a partition Consul's connections need 5 to 25 s (measured: 23 s, with Rejoin 5 s); this
// needs one interval. Records are signed and have revisions, so it does not matter who brings them, and an older one is
// refused. Each agent listens for IPv6 in the network's namespace, whose only such address is its router's link-local one:
// workloads cannot reach it (their IPv6 is fenced) and no other network leads there.

const (
	exchangePort  = 8655
	exchangeEvery = 500 * time.Millisecond // and 10 ms for each node that is asked
	exchangeTry   = 400 * time.Millisecond
	exchangeMost  = 512 << 10 // bytes of a record; Consul's own limit
	exchangeAtOne = 16        // nodes asked at once
)

// serveRecords gives this node's own endpoint record of one network to whoever connects, until ctx ends.
func (a *Agent) serveRecords(ctx context.Context, network string, l net.Listener) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // unblocks Accept
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, 64)
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) && wait(ctx, 50*time.Millisecond) {
				continue
			}
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = c.Close() // too many; they come again
			continue
		}
		wg.Go(func() {
			defer func() { _ = c.Close(); <-slots }()
			a.mu.Lock()
			rec, ok := a.ledger.Get(endpointsPath(a.opt.Config.NodeName, network))
			a.mu.Unlock()
			if ok && c.SetDeadline(time.Now().Add(2*time.Second)) == nil {
				_, _ = c.Write(rec.Value) // who reads only a part refuses it
			}
		})
	}
}

// exchange asks other nodes for their endpoint records while Consul does not bring them.
func (a *Agent) exchange(ctx context.Context) error {
	pause := exchangeEvery
	away := false
	for wait(ctx, pause) {
		pause = exchangeEvery
		if !a.hasJoined() {
			continue
		}
		was := away
		away = a.consulAlone(ctx)
		if away != was {
			a.log.Debug("whether this host's Consul agent is without servers changed", "away", away)
		}
		a.consulAway.Store(away)
		asked := a.askPeers(ctx, away)
		pause = max(pause, time.Duration(asked)*10*time.Millisecond)
	}
	return nil
}

// consulAlone reports whether Consul's servers are away, as far as the local agent knows.
func (a *Agent) consulAlone(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	n, err := a.consul.AliveServers(ctx)
	return err == nil && n == 0 || errors.Is(err, consul.ErrUnavailable) && ctx.Err() == nil
}

// askPeers asks the nodes that Consul does not speak for, or all when it speaks for none.
func (a *Agent) askPeers(ctx context.Context, all bool) (asked int) {
	s := a.snap.Load()
	if s == nil {
		return 0
	}
	a.mu.Lock()
	suspects, here := a.suspects, map[string]bool{}
	for _, e := range a.state.Endpoints {
		here[e.Network] = true
	}
	a.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, exchangeAtOne)
	for _, set := range s.Endpoints {
		node := s.Nodes[set.Node]
		if set.Node == a.opt.Config.NodeName || !here[set.Network] || !set.Router.Address.IsValid() || !node.Present() || !all && !suspects[set.Node] {
			continue
		}
		asked++
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := a.askPeer(ctx, set); err != nil && ctx.Err() == nil {
				a.log.Debug("node does not give its record", "node", set.Node, "network", set.Network, "err", err)
			}
		})
	}
	return asked
}

func (a *Agent) askPeer(ctx context.Context, set overlay.EndpointSet) error {
	ctx, cancel := context.WithTimeout(ctx, exchangeTry)
	defer cancel()
	c, err := dialRouter(ctx, kstate.NetworkNS(set.NetworkID), set.Router.Address)
	if err != nil {
		return err
	}
	defer c.Close()
	if t, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(t); err != nil {
			return err
		}
	}
	value, err := io.ReadAll(io.LimitReader(c, exchangeMost))
	if err != nil || len(value) == 0 {
		return errors.Join(err, errors.New("it said nothing"))
	}
	path := endpointsPath(set.Node, set.Network)
	a.mu.Lock()
	have, _ := a.ledger.Get(path)
	a.mu.Unlock()
	if string(have.Value) != string(value) {
		a.offer([]consul.Pair{{Path: path, Value: value}})
	}
	return nil
}

// dialRouter connects to another node's router address through a network. The zone is given as a number: names of
// interfaces mean something else in every namespace.
func dialRouter(ctx context.Context, ns string, to netip.Addr) (c net.Conn, err error) {
	err = netns.Do(ns, func() error {
		i, err := net.InterfaceByName(kstate.Bridge)
		if err != nil {
			return err
		}
		var d net.Dialer
		c, err = d.DialContext(ctx, "tcp6", net.JoinHostPort(to.WithZone(strconv.Itoa(i.Index)).String(), strconv.Itoa(exchangePort)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connect to router %s: %w", to, err)
	}
	return c, nil
}
