package engine

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// maxPacket is the room for a packet in wireguard-go's buffers, which pads it to 16 bytes and adds a tag of 16.
const maxPacket = device.MaxMessageSize - 32

// batch is how many packets go through wireguard-go at a time: what a UDP socket takes in two calls with segmentation
// offload.
const batch = 128

// tapDevice is what wireguard-go takes for its TUN: packets that it is to seal come from the TAPs, encapsulated, and from a
// TUN of the WireGuard device's name; what it has opened goes back there.
//
// The TUN carries what is not VXLAN of a network here: pings to VTEP addresses, and anything that the fence in the
// transit namespace is to see and count.
type tapDevice struct {
	name   string
	mtu    int
	plane  *plane
	tun    *tapFile
	events chan tun.Event
	close  func() error

	// Of the goroutine that calls Read.
	reader
	ready []int32
	reads int // since the files were last polled

	writers sync.Pool // *writer
}

// tunID is the TUN's in the poller; networks count from 1.
const tunID = 0

// pollEveryReads is after how many frames from files that keep giving the others are looked at.
const pollEveryReads = 32

func openDevice(ns, name string, mtu int) (*tapDevice, error) {
	p, err := newPlane()
	if err != nil {
		return nil, err
	}
	file, err := openTAP(ns, name, mtu, unix.IFF_TUN)
	if err == nil {
		if err = p.poll.add(file.fd, tunID); err != nil {
			file.close()
		}
	}
	if err != nil {
		p.close()
		return nil, err
	}
	d := &tapDevice{name: name, mtu: mtu, plane: p, tun: file, events: make(chan tun.Event, 1)}
	d.writers.New = func() any { return new(writer) }
	d.close = sync.OnceValue(func() error {
		close(d.events)
		err := p.close()
		file.close()
		return err
	})
	return d, nil
}

// File implements tun.Device; nothing asks for it.
func (d *tapDevice) File() *os.File { return nil }

// MTU implements tun.Device.
func (d *tapDevice) MTU() (int, error) { return d.mtu, nil }

// Name implements tun.Device.
func (d *tapDevice) Name() (string, error) { return d.name, nil }

// Events implements tun.Device. None ever comes: the device is up whenever the engine runs.
func (d *tapDevice) Events() <-chan tun.Event { return d.events }

// BatchSize implements tun.Device.
func (d *tapDevice) BatchSize() int { return batch }

// Close implements tun.Device. The links go with it.
func (d *tapDevice) Close() error { return d.close() }

// Read implements tun.Device.
func (d *tapDevice) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		n, err := d.fill(space{bufs, sizes, offset})
		if n > 0 || err != nil {
			return n, err
		}
		if d.ready, err = d.plane.poll.wait(d.ready[:0]); err != nil {
			return 0, os.ErrClosed
		}
	}
}

// fill reads frames until nothing is left to read or no room for another.
func (d *tapDevice) fill(s space) (n int, err error) {
	if d.pending.n > 0 {
		n = d.pending.emit(&d.cut, s)
	}
	for len(s.bufs)-n >= gatherRoom && d.pending.n == 0 && len(d.ready) > 0 {
		if d.reads++; d.reads >= pollEveryReads {
			d.reads = 0
			d.ready = d.plane.poll.poll(d.ready[:0])
			continue
		}
		id := d.ready[0]
		count, errno := d.readFrom(id, s.from(n))
		n += count
		switch {
		case errno != 0:
			d.ready = d.ready[:copy(d.ready, d.ready[1:])]
			if errno == unix.EBADFD && id == tunID {
				return n, os.ErrClosed // the link was deleted, and the engine ends with it
			}
			if errno == unix.EBADFD {
				d.plane.removeIf((*network).gone)
			}
		case len(d.ready) > 1: // in turn
			copy(d.ready, d.ready[1:])
			d.ready[len(d.ready)-1] = id
		}
	}
	return n, nil
}

func (d *tapDevice) readFrom(id int32, s space) (int, unix.Errno) {
	if id == tunID {
		return d.readTUN(s)
	}
	n := (*d.plane.byID.Load())[id]
	if n == nil || !n.tap.use() {
		return 0, unix.EAGAIN
	}
	defer n.tap.done()
	return d.reader.read(n, s)
}

func (d *tapDevice) readTUN(s space) (int, unix.Errno) {
	if !d.tun.use() {
		return 0, unix.EBADFD
	}
	defer d.tun.done()
	d.iov = append(d.iov[:0], iovec(s.bufs[0][s.at:]))
	n, errno := readv(d.tun.fd, d.iov)
	if errno != 0 {
		return 0, errno
	}
	s.sizes[0] = n
	return 1, 0
}

// detached reports whether the TUN was deleted.
func (d *tapDevice) detached() bool { return d.tun.detached() }

var _ tun.Device = (*tapDevice)(nil)
