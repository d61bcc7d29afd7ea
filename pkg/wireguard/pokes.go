package wireguard

import (
	"sync"
	"time"

	"weft/keys"
)

// peerID names a peer of a device.
type peerID struct {
	device string
	key    keys.PublicKey
}

// pokes calls a function for a peer some time after it was asked to: yieldFor later with attempt 0, and recoverAfter
// after that with attempt 1.
type pokes struct {
	poke func(id peerID, attempt int)

	mu     sync.Mutex
	timers map[peerID]*time.Timer // nil once closed
	wait   sync.WaitGroup         // one for each entry of timers, until its function has returned
}

func newPokes(poke func(peerID, int)) *pokes {
	return &pokes{poke: poke, timers: map[peerID]*time.Timer{}}
}

// later asks for pokes; those still to come for the peer are dropped, for it may not be the same peer any more.
func (p *pokes) later(id peerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timers == nil {
		return
	}
	if t := p.timers[id]; t != nil && t.Stop() {
		p.wait.Done()
	}
	p.schedule(id, 0)
}

// schedule must be called with mu held, and no timer running for id.
func (p *pokes) schedule(id peerID, attempt int) {
	after := yieldFor
	if attempt > 0 {
		after = recoverAfter
	}
	p.wait.Add(1)
	var self *time.Timer
	self = time.AfterFunc(after, func() {
		defer p.wait.Done()
		p.poke(id, attempt)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.timers[id] != self { // closed, or asked for anew meanwhile
			return
		}
		delete(p.timers, id)
		if attempt == 0 {
			p.schedule(id, 1)
		}
	})
	p.timers[id] = self
}

func (p *pokes) waiting(id peerID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.timers[id] != nil
}

// close drops what waits, and waits for what runs.
func (p *pokes) close() {
	p.mu.Lock()
	for _, t := range p.timers {
		if t.Stop() {
			p.wait.Done()
		}
	}
	p.timers = nil
	p.mu.Unlock()
	p.wait.Wait()
}
