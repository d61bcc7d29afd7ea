package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/dns"
	"weft/pkg/overlay"
)

const nodes = 100

// serveWeft is weft's name server with the bench's names; a hundred times a second one of them changes.
func serveWeft(ctx context.Context, port int) error {
	up := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), upstreamPort)
	s := dns.New(dns.Config{Log: slog.New(slog.DiscardHandler), Upstreams: func() []netip.AddrPort { return []netip.AddrPort{up} }})
	w := cluster()
	var b dns.Builder
	s.SetView(b.Build(dns.Input{Snapshot: w, Domain: "weft"}))
	packets, stream, err := dns.Open(ctx, fmt.Sprintf("127.0.0.1:%d", port), runtime.GOMAXPROCS(0))
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return s.Serve(ctx, dns.Listen{Network: "blue", Forward: true, Packets: packets, Stream: stream})
	})
	g.Go(func() error {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			change(w, i)
			s.SetView(b.Build(dns.Input{Snapshot: w, Domain: "weft"}))
		}
	})
	return g.Wait()
}

// cluster is the bench's names as a cluster has them: two endpoints each, on a hundred nodes.
func cluster() *overlay.Snapshot {
	subnet := netip.MustParsePrefix("10.0.0.0/8")
	w := &overlay.Snapshot{Nodes: map[string]overlay.Node{}, Complete: true, Networks: map[string]overlay.Network{
		"blue": {Name: "blue", ID: "b1", Subnets: []netip.Prefix{subnet}, Gateway: subnet.Addr().Next()}}}
	for node := range nodes {
		name := fmt.Sprintf("n%d", node)
		w.Nodes[name] = overlay.Node{Name: name}
		set := overlay.EndpointSet{Node: name, Network: "blue", NetworkID: "b1", Revision: 1}
		for i := node; i < names; i += nodes {
			for k := range 2 {
				id := fmt.Sprintf("e-%d-%d", i, k)
				set.Endpoints = append(set.Endpoints, overlay.Endpoint{ID: overlay.EndpointID(id), Name: id,
					Address: netip.MustParseAddr(address(i, k, 0)), Services: []string{fmt.Sprintf("svc-%d", i)}})
			}
		}
		w.Endpoints = append(w.Endpoints, set)
	}
	return w
}

// change gives one endpoint another address, there and back.
func change(w *overlay.Snapshot, i int) {
	set := &w.Endpoints[i%nodes]
	set.Revision++
	set.Endpoints = slices.Clone(set.Endpoints)
	e := &set.Endpoints[i/nodes%len(set.Endpoints)]
	a := e.Address.As4()
	a[1] ^= 4
	e.Address = netip.AddrFrom4(a)
}

// serveUpstream answers every question with one address that may be kept for an hour.
func serveUpstream(ctx context.Context, port int) error {
	c, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil || n < 17 {
			continue
		}
		end := 12
		for end < n && b[end] != 0 {
			end += int(b[end]) + 1
		}
		if end += 5; end > n {
			continue
		}
		out := append([]byte(nil), b[:end]...)
		out[2], out[3] = 0x81, 0x80
		copy(out[4:12], []byte{0, 1, 0, 1, 0, 0, 0, 0})
		out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4, 192, 0, 2, 1)
		if _, err := c.WriteTo(out, from); err != nil {
			continue
		}
	}
}
