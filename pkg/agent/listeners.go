package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"

	"weft/dns"
	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/overlay"
	"weft/pkg/reconcile"
)

// maxSockets bounds the UDP sockets of one network: one for each core, but a host with many cores has many networks too.
const maxSockets = 16

// listeners keeps the DNS sockets: on gateway:53 in the namespace of each network that has endpoints here, and one pair
// on the host. Sockets belong to the namespace they were opened in, so serving needs no thread there.
type listeners struct {
	agent *Agent
	mu    sync.Mutex
	open  map[overlay.NetworkID]*listener
	host  *listener
}

type listener struct {
	inode    uint64 // of the namespace: when it is made anew, so are the sockets
	gateway  netip.Addr
	internal bool
	cancel   context.CancelFunc
	done     chan struct{}
}

func (l *listener) close() {
	l.cancel()
	<-l.done
}

// ended reports whether serving has stopped by itself.
func (l *listener) ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
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
		if !ok || err != nil || inode != l.inode || n.Gateway != l.gateway || n.Internal != l.internal || l.ended() {
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
	if err := ls.syncHost(ctx); err != nil {
		problems = append(problems, overlay.Problem{Subject: "names", Message: fmt.Sprintf("the host cannot ask for names: %v: set dns.listen to a free address, or to nothing", err)})
	}
	return problems
}

// syncHost opens the host's listener.
func (ls *listeners) syncHost(ctx context.Context) error {
	address := ls.agent.opt.Config.DNS.Listen
	if ls.host != nil && ls.host.ended() {
		ls.host = nil
	}
	if !address.IsValid() || ls.host != nil {
		return nil
	}
	packets, stream, err := dns.Open(ctx, address.String(), 1)
	if err != nil {
		return err
	}
	ls.host = ls.serve(ctx, dns.Listen{Packets: packets, Stream: stream}, nil)
	return nil
}

func (ls *listeners) listen(ctx context.Context, n overlay.Network) (*listener, error) {
	ns := kstate.NetworkNS(n.ID)
	inode, err := netns.Inode(netns.Path(ns))
	if err != nil {
		return nil, err
	}
	lst := dns.Listen{Network: n.Name, Forward: !n.Internal}
	address := net.JoinHostPort(n.Gateway.String(), strconv.Itoa(53))
	var records net.Listener
	err = netns.Do(ns, func() (err error) {
		if lst.Packets, lst.Stream, err = dns.Open(ctx, address, min(runtime.GOMAXPROCS(0), maxSockets)); err != nil || !exists("/proc/sys/net/ipv6") {
			return err
		}
		var lc net.ListenConfig
		if records, err = lc.Listen(ctx, "tcp6", fmt.Sprintf("[::]:%d", exchangePort)); err != nil {
			ls.agent.log.Warn("other nodes cannot ask this one for its record", "network", n.Name, "err", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s in %s: %w", address, ns, err)
	}
	l := ls.serve(ctx, lst, records)
	l.inode, l.gateway, l.internal = inode, n.Gateway, n.Internal
	return l, nil
}

// serve answers names on lst and, unless nil, gives this node's record on records.
func (ls *listeners) serve(ctx context.Context, lst dns.Listen, records net.Listener) *listener {
	ctx, cancel := context.WithCancel(ctx)
	l := &listener{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		if records != nil {
			wg.Go(func() { ls.agent.serveRecords(ctx, lst.Network, records) })
		}
		if err := ls.agent.dns.Serve(ctx, lst); err != nil {
			ls.agent.log.Warn("name server ended", "network", lst.Network, "err", err)
			ls.agent.loop.Kick()
		}
	}()
	return l
}

func (ls *listeners) closeAll() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for id, l := range ls.open {
		l.close()
		delete(ls.open, id)
	}
	if ls.host != nil {
		ls.host.close()
		ls.host = nil
	}
}
