package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"weft/pkg/kstate"
	"weft/pkg/netns"
)

// answers reports whether a VTEP answers an echo through the mesh: three tries within tries*each, wall time. It is the
// kernel of the other host that answers, also when its agent does not run.
func (a *Agent) answers(ctx context.Context, vtep netip.Addr) (bool, error) {
	const tries, each = 3, 500 * time.Millisecond
	var c *icmp.PacketConn
	err := netns.Do(kstate.Transit, func() (err error) {
		c, err = icmp.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	if err != nil {
		return false, fmt.Errorf("probe %s: %w", vtep, err)
	}
	defer c.Close()
	for seq := range tries {
		m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: seq, Data: []byte("weft")}}
		b, err := m.Marshal(nil)
		if err != nil {
			return false, fmt.Errorf("probe %s: %w", vtep, err)
		}
		if _, err := c.WriteTo(b, &net.IPAddr{IP: vtep.AsSlice()}); err != nil {
			if !wait(ctx, each) { // no route or no session: that is no answer
				return false, ctx.Err()
			}
			continue
		}
		switch ok, err := heardFrom(c, vtep, time.Now().Add(each)); {
		case err != nil:
			return false, fmt.Errorf("probe %s: %w", vtep, err)
		case ok:
			return true, nil
		}
	}
	return false, ctx.Err()
}

// heardFrom waits for an echo reply from vtep until the deadline.
func heardFrom(c *icmp.PacketConn, vtep netip.Addr, deadline time.Time) (bool, error) {
	if err := c.SetReadDeadline(deadline); err != nil {
		return false, err
	}
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		m, err := icmp.ParseMessage(1, b[:n]) // 1: ICMP for IPv4 (IANA protocol numbers)
		if err == nil && m.Type == ipv4.ICMPTypeEchoReply && from.String() == vtep.String() {
			return true, nil
		}
	}
}
