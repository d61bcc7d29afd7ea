package engine

import (
	"golang.org/x/sys/unix"

	"weft/pkg/engine/frame"
)

// Transmit
//
// A TAP gives frames of up to 64 KB, to be cut into segments that each go into a buffer of wireguard-go's. Reading a
// frame whole and copying its pieces would touch every byte once more than needed. So the frame is read with readv, with
// the buffers laid out as if it were cut like the last one that was:
//
//	buffer 0  | 16 | outer 36 | headers | payload 0 |        the kernel copies each piece of the frame to where its
//	buffer 1  | 16 | outer 36 | ....... | payload 1 |        segment needs it; the headers in front of payload 1 and
//	buffer 2  | 16 | outer 36 | ....... | payload 2 |        the following are written afterwards
//	...
//	spill     what is longer than foreseen
//
// A frame that is small lies in buffer 0 in one piece. Where the guess was wrong, the pieces are gathered and the frame
// is cut by copying: that happens once per change of a flow's segment size.

const (
	maxFrame   = 65535 + 18   // an IP packet behind an Ethernet header with a tag
	minGuess   = 512          // bytes in buffer 0 and others: shorter segments are cut by copying
	gatherRoom = 64           // buffers that must be free for another frame to be read: a full one has 48 segments
	spillLen   = maxFrame + 1 // one more, so that a frame that is too long shows
)

// layout is how the last large frame was cut.
type layout struct{ header, size int }

// reader reads TAPs into wireguard-go's buffers. It belongs to the one goroutine that calls Read.
type reader struct {
	vnet    [frame.VNetLen]byte
	spill   [spillLen]byte
	iov     []unix.Iovec
	cut     frame.Cut
	pending pending
}

// space is where a Read puts packets.
type space struct {
	bufs  [][]byte
	sizes []int
	at    int // offset of a packet in each buffer
}

func (s space) from(n int) space { return space{s.bufs[n:], s.sizes[n:], s.at} }

// pending is a frame that is cut by copying, perhaps over several Reads.
type pending struct {
	buf     []byte
	n       int // 0: nothing is pending
	gso     bool
	to      []*remote // still to be served, the first one from segment next on
	next    int
	hash    uint32
	network *network
}

// read reads one frame and returns how many packets it has put into s; EAGAIN when there is nothing to read.
func (r *reader) read(n *network, s space) (count int, errno unix.Errno) {
	guess := n.layout
	if n.small >= calm {
		guess = layout{}
	}
	total, errno := readv(n.tap.fd, r.layOut(guess, s))
	if errno != 0 {
		return 0, errno
	}
	size := total - frame.VNetLen
	if size < 14 || size > maxFrame {
		n.drops[malformed].Add(1)
		return 0, 0
	}
	v := frame.ParseVNet(r.vnet[:])
	if n.small++; v.GSOType != frame.GSONone {
		n.small = 0
	}
	first := s.bufs[0][s.at+frame.OuterLen:]
	lead := len(first) // what lies in buffer 0
	if guess.size > 0 {
		lead = guess.header + guess.size
	}
	if size <= lead && v.GSOType == frame.GSONone {
		return r.single(n, v, first[:size], s), 0
	}
	if guess.size > 0 && v.GSOType != frame.GSONone && r.cut.Prepare(v, first[:min(size, lead)], size) == nil &&
		(layout{r.cut.Header, r.cut.Size}) == guess && r.cut.Count() <= len(s.bufs) {
		if to, one := n.receivers(first); one != nil && len(to) == 0 {
			return r.inPlace(n, one, s), 0
		}
	}
	r.gather(guess, size, s)
	return r.begin(n, v, size, s), 0
}

// layOut is the iovecs for the next frame.
func (r *reader) layOut(g layout, s space) []unix.Iovec {
	iov := append(r.iov[:0], iovec(r.vnet[:]))
	at := s.at + frame.OuterLen
	if g.size == 0 {
		iov = append(iov, iovec(s.bufs[0][at:]))
	} else {
		iov = append(iov, iovec(s.bufs[0][at:at+g.header+g.size]))
		at += g.header
		for i, left := 1, maxFrame-g.header-g.size; i < len(s.bufs) && left > 0; i, left = i+1, left-g.size {
			iov = append(iov, iovec(s.bufs[i][at:at+g.size]))
		}
	}
	r.iov = append(iov, iovec(r.spill[:]))
	return r.iov
}

// single sends a frame that needs no cutting, from where it lies.
func (r *reader) single(n *network, v frame.VNet, b []byte, s space) int {
	if v.Flags&frame.NeedsCsum != 0 && v.Complete(b) != nil {
		n.drops[malformed].Add(1)
		return 0
	}
	to, one := n.receivers(b)
	if one == nil {
		return 0
	}
	if len(to) > 0 { // a flood
		r.pending.set(n, b, false, append(to, one))
		return r.pending.emit(&r.cut, s)
	}
	packet := s.bufs[0][s.at : s.at+frame.OuterLen+len(b)]
	one.outer.Put(packet, frame.FlowHash(b))
	s.sizes[0] = len(packet)
	one.sent(1, len(b))
	return 1
}

// inPlace cuts a frame that was laid out as it must be.
func (r *reader) inPlace(n *network, to *remote, s space) int {
	at := s.at + frame.OuterLen
	hash := frame.FlowHash(s.bufs[0][at : at+r.cut.Header])
	count, bytes := r.cut.Count(), 0
	for i := range count {
		l := r.cut.Len(i)
		packet := s.bufs[i][s.at : at+l]
		r.cut.Finish(i, packet[frame.OuterLen:])
		to.outer.Put(packet, hash)
		s.sizes[i] = len(packet)
		bytes += l
	}
	to.sent(count, bytes)
	return count
}

// gather puts the pieces of a frame together in the pending buffer.
func (r *reader) gather(g layout, size int, s space) {
	if r.pending.buf == nil {
		r.pending.buf = make([]byte, 0, maxFrame)
	}
	b := r.pending.buf[:0]
	for _, v := range r.iov[1:] {
		if len(b) == size {
			break
		}
		piece := unsafeBytes(v)
		b = append(b, piece[:min(len(piece), size-len(b))]...)
	}
	r.pending.buf = b
}

// begin takes the gathered frame and sends what there is room for.
func (r *reader) begin(n *network, v frame.VNet, size int, s space) int {
	b := r.pending.buf
	gso := v.GSOType != frame.GSONone
	var err error
	if gso {
		err = r.cut.Prepare(v, b, size)
	} else if v.Flags&frame.NeedsCsum != 0 {
		err = v.Complete(b)
	}
	if err != nil || !gso && size > maxPacket-s.at-frame.OuterLen {
		n.drops[malformed].Add(1)
		return 0
	}
	if gso && r.cut.Header+r.cut.Size >= minGuess && s.at+frame.OuterLen+r.cut.Header+r.cut.Size <= maxPacket {
		n.layout = layout{r.cut.Header, r.cut.Size}
	}
	to, one := n.receivers(b)
	if one == nil {
		return 0
	}
	r.pending.set(n, b, gso, append(to, one))
	return r.pending.emit(&r.cut, s)
}

// set makes b, which may lie in a packet buffer, the pending frame.
func (p *pending) set(n *network, b []byte, gso bool, to []*remote) {
	p.buf = append(p.buf[:0], b...)
	p.n, p.gso, p.to, p.next, p.network, p.hash = len(b), gso, to, 0, n, frame.FlowHash(b)
}

// emit sends as many segments as there is room for, and returns their number.
func (p *pending) emit(c *frame.Cut, s space) (count int) {
	segments := 1
	if p.gso {
		segments = c.Count()
	}
	for p.n > 0 && count < len(s.bufs) {
		to, l := p.to[0], p.n
		if p.gso {
			l = c.Len(p.next)
		}
		packet := s.bufs[count][s.at : s.at+frame.OuterLen+l]
		b := packet[frame.OuterLen:]
		if p.gso {
			copy(b[c.Header:], p.buf[c.Header+p.next*c.Size:])
			c.Finish(p.next, b)
		} else {
			copy(b, p.buf[:l])
		}
		to.outer.Put(packet, p.hash)
		s.sizes[count] = len(packet)
		to.tx.packets.Add(1)
		to.tx.bytes.Add(uint64(l))
		count++
		if p.next++; p.next < segments {
			continue
		}
		to.tx.frames.Add(1)
		p.next, p.to = 0, p.to[1:]
		if len(p.to) == 0 {
			p.n = 0
		}
	}
	return count
}

// receivers finds where a frame goes: one VTEP, or for a flood one and the others. The bridge lets a flood through to the
// TAP only on networks that are multicast. What the TAP itself says as a link (MLD, router solicitation) is nobody's
// business. Nobody is nil; an unknown MAC is counted.
func (n *network) receivers(b []byte) (others []*remote, one *remote) {
	t := n.table.Load()
	if b[0]&1 == 0 {
		if one = t.byMAC[macKey(b)]; one == nil {
			n.drops[unknownMAC].Add(1)
		}
		return nil, one
	}
	if macKey(b[6:]) == n.tap.mac {
		return nil, nil
	}
	for _, r := range t.byVTEP {
		if one == nil {
			one = r
		} else {
			others = append(others, r)
		}
	}
	return others, one
}

func (r *remote) sent(packets, bytes int) {
	r.tx.packets.Add(uint64(packets))
	r.tx.bytes.Add(uint64(bytes))
	r.tx.frames.Add(1)
}
