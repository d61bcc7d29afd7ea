package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"

	"weft/dns"
	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/overlay"
	"weft/pkg/reconcile"
)

// listeners keeps the DNS sockets: one pair on gateway:53 in the namespace of each network that has endpoints here.
// Sockets belong to the namespace they were opened in, so serving needs no thread there.
type listeners struct {
	agent *Agent
	mu    sync.Mutex
	open  map[overlay.NetworkID]*listener
}

type listener struct {
	inode   uint64 // of the namespace: when it is made anew, so are the sockets
	gateway netip.Addr
	cancel  context.CancelFunc
	done    chan struct{}
}

func (l *listener) close() {
	l.cancel()
	<-l.done
}

// sync follows a pass of the loop: it opens what is missing and closes what has no namespace any more.
func (ls *listeners) sync(ctx context.Context, r reconcile.Result) (problems []overlay.Problem) {
	if r.Want == nil {
		return nil
	}
	s := ls.agent.snap.Load()
	ls.mu.Lock()
	defer ls.mu.Unlock()
	need := map[overlay.NetworkID]overlay.Network{}
	for _, n := range s.Networks {
		if n.Alive() && r.Want.Has(kstate.NetNS{Name: kstate.NetworkNS(n.ID)}.Key()) {
			need[n.ID] = n
		}
	}
	for id, l := range ls.open {
		n, ok := need[id]
		inode, err := netns.Inode(netns.Path(kstate.NetworkNS(id)))
		if !ok || err != nil || inode != l.inode || n.Gateway != l.gateway {
			l.close()
			delete(ls.open, id)
		}
	}
	for id, n := range need {
		if ls.open[id] != nil {
			continue
		}
		l, err := ls.listen(ctx, n)
		if err != nil {
			problems = append(problems, overlay.Problem{Subject: networkSubject(n.Name), Message: fmt.Sprintf("names are not served yet: %v", err)})
			continue
		}
		ls.open[id] = l
	}
	return problems
}

func (ls *listeners) listen(ctx context.Context, n overlay.Network) (*listener, error) {
	ns := kstate.NetworkNS(n.ID)
	inode, err := netns.Inode(netns.Path(ns))
	if err != nil {
		return nil, err
	}
	var pc net.PacketConn
	var ln net.Listener
	address := net.JoinHostPort(n.Gateway.String(), strconv.Itoa(53))
	err = netns.Do(ns, func() (err error) {
		var lc net.ListenConfig
		if pc, err = lc.ListenPacket(ctx, "udp", address); err != nil {
			return err
		}
		if ln, err = lc.Listen(ctx, "tcp", address); err != nil {
			_ = pc.Close() // the listen error is what counts
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s in %s: %w", address, ns, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &listener{inode: inode, gateway: n.Gateway, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		if err := ls.agent.dns.Serve(ctx, dns.Listen{Network: n.Name, Forward: !n.Internal, Packet: pc, Stream: ln}); err != nil {
			ls.agent.log.Warn("name server of a network ended", "network", n.Name, "err", err)
		}
	}()
	return l, nil
}

func (ls *listeners) closeAll() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for id, l := range ls.open {
		l.close()
		delete(ls.open, id)
	}
}

// upstreams are the servers that names outside weft are asked of.
func (a *Agent) upstreams() []netip.AddrPort { return a.cfg.Load().DNS.Upstreams }
