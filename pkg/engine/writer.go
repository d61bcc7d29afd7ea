package engine

import (
	"errors"

	"golang.org/x/sys/unix"

	"weft/pkg/engine/frame"
)

// writer is the state of one Write.
type writer struct {
	joiner frame.Joiner
	nets   []*network
	from   []tally // per network and remote of this batch
	iov    []unix.Iovec
	last   source
}

// source is what was found for the last packet, for the next one is likely of the same.
type source struct {
	vni     uint32
	mac     uint64
	vtep    vtep
	network *network
	remote  *remote
	tag     int
}

type tally struct {
	network *network
	remote  *remote
	packets uint64
	bytes   uint64
}

// Write implements tun.Device: it takes packets that WireGuard has opened, all of one peer, whose allowed addresses it
// has checked. It never fails: what cannot be delivered is counted.
func (d *tapDevice) Write(bufs [][]byte, offset int) (int, error) {
	w := d.writers.Get().(*writer)
	port := uint16(d.plane.port.Load())
	networks := *d.plane.byVNI.Load()
	for _, buf := range bufs {
		packet := buf[offset:]
		kind, vni, at, ce := frame.ParseOuter(packet, port)
		n := networks[vni]
		switch {
		case kind == frame.Malformed:
			d.plane.drops[malformed].Add(1)
		case kind == frame.Other || n == nil:
			d.writeTUN(packet)
		default:
			if tag, ok := w.admit(n, vni, packet, at, ce); ok {
				w.joiner.Add(tag, buf, offset+at)
			}
		}
	}
	w.flush()
	d.writers.Put(w)
	return len(bufs), nil
}

// admit is the fence: a frame comes in only from the VTEP that its source MAC is behind, on this network. It returns the
// tally that the frame belongs to.
func (w *writer) admit(n *network, vni uint32, packet []byte, at int, ce bool) (tag int, ok bool) {
	src, dst := vtep(packet[12:16]), vtep(packet[16:20])
	b := packet[at:]
	mac := macKey(b[6:])
	if l := &w.last; l.remote == nil || l.network != n || l.mac != mac || l.vtep != src {
		t := n.table.Load()
		r := t.byMAC[mac]
		switch {
		case t.byVTEP[src] == nil:
			n.strangers.count(src, notMember)
			return 0, false
		case r == nil || r.vtep != src:
			t.byVTEP[src].drops[foreignMAC].Add(1)
			return 0, false
		}
		*l = source{vni, mac, src, n, r, w.tag(n, r)}
	}
	r := w.last.remote
	if dst != n.local {
		r.drops[wrongVTEP].Add(1)
		return 0, false
	}
	if ce && !frame.MarkCE(b) {
		r.drops[congested].Add(1)
		return 0, false
	}
	w.from[w.last.tag].packets++
	w.from[w.last.tag].bytes += uint64(len(b))
	return w.last.tag, true
}

func (w *writer) tag(n *network, r *remote) int {
	for i := range w.from {
		if w.from[i].remote == r {
			return i
		}
	}
	w.from = append(w.from, tally{network: n, remote: r})
	return len(w.from) - 1
}

// flush writes the joined frames, and forgets the batch.
func (w *writer) flush() {
	w.joiner.Emit(func(tag int, parts [][]byte, segments int) {
		t := w.from[tag]
		if err := w.write(t.network, parts); err != nil {
			t.remote.drops[notDelivered].Add(uint64(segments))
			return
		}
		t.remote.rx.frames.Add(1)
	})
	w.joiner.Reset()
	for _, t := range w.from {
		t.remote.rx.packets.Add(t.packets)
		t.remote.rx.bytes.Add(t.bytes)
	}
	clear(w.from)
	clear(w.iov)
	w.from, w.iov, w.last = w.from[:0], w.iov[:0], source{}
}

var errClosed = errors.New("network is closed")

func (w *writer) write(n *network, parts [][]byte) error {
	if !n.tap.use() {
		return errClosed
	}
	defer n.tap.done()
	w.iov = w.iov[:0]
	for _, p := range parts {
		w.iov = append(w.iov, iovec(p))
	}
	if _, errno := writev(n.tap.fd, w.iov); errno != 0 {
		return errno
	}
	return nil
}

// writeTUN hands a packet to the transit namespace.
func (d *tapDevice) writeTUN(packet []byte) {
	if !d.tun.use() {
		return
	}
	defer d.tun.done()
	iov := [1]unix.Iovec{iovec(packet)}
	if _, errno := writev(d.tun.fd, iov[:]); errno != 0 {
		d.plane.drops[notDelivered].Add(1)
	}
}
