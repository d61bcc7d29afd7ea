package engine

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/pkg/engine/control"
)

// plane holds the networks. Lookups on the data path read a map that is replaced as a whole.
type plane struct {
	poll  *poller
	byVNI atomic.Pointer[map[uint32]*network]
	byID  atomic.Pointer[map[int32]*network]
	port  atomic.Uint32 // of VXLAN; the same for all networks
	drops               // of what belongs to no network

	mu     sync.Mutex // serialises changes
	lastID int32
}

func newPlane() (*plane, error) {
	poll, err := newPoller()
	if err != nil {
		return nil, err
	}
	p := &plane{poll: poll}
	p.store(nil)
	return p, nil
}

func (p *plane) store(all []*network) {
	byVNI, byID := map[uint32]*network{}, map[int32]*network{}
	for _, n := range all {
		byVNI[uint32(n.VNI)], byID[n.id] = n, n
	}
	p.byVNI.Store(&byVNI)
	p.byID.Store(&byID)
}

func (p *plane) all() []*network { return slices.Collect(maps.Values(*p.byVNI.Load())) }

// add makes a network's TAP, unless there is one as wanted; another one of its VNI, or of its name in the namespace,
// gives way.
func (p *plane) add(t control.TAP) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if port := p.port.Load(); port != 0 && port != uint32(t.Port) && len(*p.byVNI.Load()) > 0 {
		return fmt.Errorf("%w: VXLAN port %d, other networks use %d", errInvalid, t.Port, port)
	}
	var keep []*network
	for _, n := range p.all() {
		if n.VNI != t.VNI && (n.NetNS != t.NetNS || n.Name != t.Name) {
			keep = append(keep, n)
			continue
		}
		if have := n.TAP; !n.gone() && have.NetNS == t.NetNS && have.Name == t.Name && have.VNI == t.VNI &&
			have.Local == t.Local && have.Port == t.Port {
			return nil
		}
		n.tap.close()
	}
	p.store(keep)
	p.lastID++
	n, err := openNetwork(t, p.lastID)
	if err != nil {
		return err
	}
	p.port.Store(uint32(t.Port))
	p.store(append(keep, n))
	if err := p.poll.add(n.tap.fd, n.id); err != nil {
		p.store(keep)
		n.tap.close()
		return err
	}
	return nil
}

// find returns a network by the place of its TAP, an os.ErrNotExist when there is none.
func (p *plane) find(netns, name string) (*network, error) {
	for _, n := range p.all() {
		if n.NetNS == netns && n.Name == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("no TAP %s in %s: %w", name, netns, os.ErrNotExist)
}

// removeIf closes the networks that drop names.
func (p *plane) removeIf(drop func(*network) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var keep, gone []*network
	for _, n := range p.all() {
		if drop(n) {
			gone = append(gone, n)
		} else {
			keep = append(keep, n)
		}
	}
	if len(gone) == 0 {
		return
	}
	p.store(keep)
	for _, n := range gone {
		n.tap.close()
	}
}

// sweep drops networks whose link was deleted, until ctx ends. The reader alone may not notice, see awaitDetached.
func (p *plane) sweep(ctx context.Context) {
	tick := time.NewTicker(detachedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.removeIf((*network).gone)
		}
	}
}

func (p *plane) report() []control.Network {
	p.removeIf((*network).gone)
	all := p.all()
	out := make([]control.Network, len(all))
	for i, n := range all {
		out[i] = n.report()
	}
	slices.SortFunc(out, func(a, b control.Network) int { return int(a.VNI) - int(b.VNI) })
	return out
}

func (p *plane) close() error {
	p.removeIf(func(*network) bool { return true })
	return p.poll.close()
}
