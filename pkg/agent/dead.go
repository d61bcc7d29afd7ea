package agent

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"weft/consul"
	"weft/pkg/kstate"
	"weft/pkg/netns"
)

// A node that dies says no goodbye. Its endpoints leave the answers when both witnesses agree: Consul's gossip finds the
// host dead, and it does not answer through the mesh. The data path is not touched: if the node lives after all, as
// behind a broken gossip, connections go on, and its names come back with its first answer.
const (
	deadEvery = time.Second            // how often a suspect is asked
	deadTries = 3                      // echoes, until it is dead
	deadEcho  = 300 * time.Millisecond // each one's time
)

// watchDead keeps the set of dead nodes.
func (a *Agent) watchDead(ctx context.Context) error {
	news := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for !a.hasJoined() {
			if !wait(ctx, 200*time.Millisecond) {
				return
			}
		}
		err := a.consul.WatchHealth(ctx, func(all map[string]consul.NodeHealth) {
			next := map[string]bool{}
			for node, h := range all {
				if !h.SerfAlive && node != a.opt.Config.NodeName {
					next[node] = true
				}
			}
			a.mu.Lock()
			a.suspects = next
			a.mu.Unlock()
			kick(news)
		}, nil)
		if err != nil && ctx.Err() == nil {
			a.log.Warn("the health of nodes is not followed: endpoints on dead nodes stay in the answers", "err", err)
		}
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		case <-time.After(deadEvery):
		}
		a.mu.Lock()
		now := slices.Sorted(maps.Keys(a.suspects))
		a.mu.Unlock()
		a.setDead(a.silent(ctx, now))
	}
}

func (a *Agent) hasJoined() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.joined
}

// silent returns those of the nodes that do not answer through any network that this node shares with them.
func (a *Agent) silent(ctx context.Context, nodes []string) map[string]bool {
	out := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, node := range nodes {
		wg.Go(func() {
			alive := false
			for ns, router := range a.routersOf(node) {
				if echo(ctx, ns, router) == nil {
					alive = true
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			out[node] = !alive
		})
	}
	wg.Wait()
	maps.DeleteFunc(out, func(_ string, dead bool) bool { return !dead })
	return out
}

// routersOf is where a node answers: its router addresses, by the namespace of the network.
func (a *Agent) routersOf(node string) map[string]netip.Addr {
	s := a.snap.Load()
	here := map[string]bool{}
	a.mu.Lock()
	for _, e := range a.state.Endpoints {
		here[e.Network] = true
	}
	a.mu.Unlock()
	out := map[string]netip.Addr{}
	if s == nil {
		return out
	}
	for _, set := range s.Endpoints {
		if set.Node == node && here[set.Network] && set.Router.Address.IsValid() {
			out[kstate.NetworkNS(set.NetworkID)] = set.Router.Address
		}
	}
	return out
}

func (a *Agent) setDead(dead map[string]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if maps.Equal(a.dead, dead) {
		return
	}
	for node := range dead {
		if !a.dead[node] {
			a.log.Warn("node is dead for Consul and silent in the mesh: its endpoints leave the names; the data path stays as it is", "node", node)
		}
	}
	for node := range a.dead {
		if !dead[node] {
			a.log.Info("node is there again: its endpoints have their names back", "node", node)
		}
	}
	a.dead = dead
	if a.ledger != nil {
		a.setViewLocked()
	}
}

// echo sends ICMPv6 echo requests (RFC 4443 section 4.1) to a router address from a network's namespace, until one is
// answered.
func echo(ctx context.Context, ns string, to netip.Addr) error {
	return netns.Do(ns, func() error {
		i, err := net.InterfaceByName(kstate.Bridge)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		t := unix.NsecToTimeval(int64(deadEcho / 4))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &t); err != nil {
			return err
		}
		id := uint16(os.Getpid())
		dst := &unix.SockaddrInet6{Addr: to.As16(), ZoneId: uint32(i.Index)}
		buf := make([]byte, 256)
		for seq := range deadTries {
			m := []byte{128, 0, 0, 0, byte(id >> 8), byte(id), 0, byte(seq)} // the kernel fills the checksum in
			if err := unix.Sendto(fd, m, 0, dst); err != nil {
				return err
			}
			for end := time.Now().Add(deadEcho); time.Now().Before(end) && ctx.Err() == nil; {
				n, from, err := unix.Recvfrom(fd, buf, 0)
				if err != nil {
					continue // EAGAIN: nothing yet
				}
				if f, ok := from.(*unix.SockaddrInet6); ok && n >= 8 && buf[0] == 129 && f.Addr == dst.Addr && buf[4] == m[4] && buf[5] == m[5] {
					return nil
				}
			}
		}
		return errors.New("no answer")
	})
}
