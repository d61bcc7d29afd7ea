package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/overlay"
	"weft/pkg/plan"
)

// path is what a probe found of the way to a peer.
type path string

const (
	pathOK     path = "ok"     // full-size packets pass
	pathSmall  path = "small"  // small packets pass, full-size ones do not: some underlay MTU on the way is smaller
	pathSilent path = "silent" // no answer
)

// The probes' clocks, wall time.
const (
	firstProbe = 3 * time.Second
	probeEvery = 30 * time.Second // mean; jittered
	echoWait   = 500 * time.Millisecond
	echoTries  = 3
)

// probeLoop probes the way to every present node with full-size packets that must not be fragmented, so that "up" means
// that the MTU works. It is the other host's kernel that answers, also when its agent does not run.
func (a *Agent) probeLoop(ctx context.Context) error {
	next := firstProbe
	for wait(ctx, next) {
		next = probeEvery/2 + rand.N(probeEvery)
		s := a.snap.Load()
		if s == nil || !s.Complete {
			continue
		}
		var g errgroup.Group
		g.SetLimit(8)
		for _, n := range s.Nodes {
			if n.Name == a.opt.Config.NodeName || !n.Present() {
				continue
			}
			g.Go(func() error {
				p, err := a.probe(ctx, n)
				if err != nil {
					a.log.Debug("peer not probed", "peer", n.Name, "err", err)
					return nil // status shows what was found before
				}
				a.mu.Lock()
				defer a.mu.Unlock()
				a.paths[n.Name] = p
				return nil
			})
		}
		_ = g.Wait() // the functions return nil
	}
	return nil
}

// probe classifies the way to a node.
func (a *Agent) probe(ctx context.Context, n overlay.Node) (path, error) {
	full := plan.NetworkMTU(min(a.under.MTU, n.UnderlayMTU), true) + 50 // what VXLAN adds to an endpoint's packet
	for _, try := range []struct {
		size int
		says path
	}{{full, pathOK}, {64, pathSmall}} {
		ok, err := a.echo(ctx, n.VTEP, try.size)
		if err != nil {
			return "", err
		}
		if ok {
			return try.says, nil
		}
	}
	return pathSilent, ctx.Err()
}

// answers reports whether a VTEP answers an echo through the mesh.
func (a *Agent) answers(ctx context.Context, vtep netip.Addr) (bool, error) {
	return a.echo(ctx, vtep, 64)
}

// echo sends up to echoTries echo requests of size bytes, IP header included, that must not be fragmented.
func (a *Agent) echo(ctx context.Context, vtep netip.Addr, size int) (bool, error) {
	c, err := a.echoSocket()
	if err != nil {
		return false, fmt.Errorf("probe %s: %w", vtep, err)
	}
	defer c.Close()
	id := int(rand.Uint32N(1 << 16))
	for seq := range echoTries {
		m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: id, Seq: seq, Data: make([]byte, max(0, size-28))}}
		b, err := m.Marshal(nil)
		if err != nil {
			return false, fmt.Errorf("probe %s: %w", vtep, err)
		}
		if _, err := c.WriteTo(b, &net.IPAddr{IP: vtep.AsSlice()}); err != nil {
			if !wait(ctx, echoWait) { // no route, no session, or too large: that is no answer
				return false, ctx.Err()
			}
			continue
		}
		switch ok, err := heardFrom(c, vtep, id, time.Now().Add(echoWait)); {
		case err != nil:
			return false, fmt.Errorf("probe %s: %w", vtep, err)
		case ok:
			return true, nil
		}
	}
	return false, ctx.Err()
}

// echoSocket is a raw ICMP socket in the transit namespace that sets DF and does not look at learnt path MTUs.
func (a *Agent) echoSocket() (c net.PacketConn, err error) {
	err = netns.Do(kstate.Transit, func() (err error) {
		lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			var serr error
			err := raw.Control(func(fd uintptr) {
				serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
			})
			return errors.Join(err, serr)
		}}
		c, err = lc.ListenPacket(context.Background(), "ip4:icmp", "0.0.0.0")
		return err
	})
	return c, err
}

// heardFrom waits for an echo reply from vtep until the deadline.
func heardFrom(c net.PacketConn, vtep netip.Addr, id int, deadline time.Time) (bool, error) {
	if err := c.SetReadDeadline(deadline); err != nil {
		return false, err
	}
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		m, err := icmp.ParseMessage(1, b[:n]) // 1: ICMP for IPv4 (IANA protocol numbers)
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply || from.String() != vtep.String() {
			continue // every raw socket sees every ICMP message of its namespace
		}
		if e, ok := m.Body.(*icmp.Echo); ok && e.ID == id {
			return true, nil
		}
	}
}
