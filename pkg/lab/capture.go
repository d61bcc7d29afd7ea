package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Frame is an Ethernet frame seen on the underlay. A sender that leaves segmenting to its device, as hosts joined by veth
// do, is seen with frames up to 64 KB that stand for several.
type Frame struct {
	Time time.Time
	From string // the host that sent it
	Data []byte // valid during the call only
}

// Capture watches the underlay.
type Capture struct {
	file   *os.File
	raw    int // its descriptor, valid until file is closed
	done   chan struct{}
	err    error // of the reader, then of Stop
	once   sync.Once
	frames atomic.Int64
}

// captureBuffer holds a burst of 10 Gbit/s for some 50 ms.
const captureBuffer = 64 << 20

// Capture calls each, from a goroutine of its own, with every frame that hosts send to the switch from now on, once each, also
// with those that the switch then drops. It ends with Stop or with ctx; Stop must be called.
func (l *Lab) Capture(ctx context.Context, each func(Frame)) (*Capture, error) {
	var fd int
	ports := map[int]string{}
	err := l.inNet(Switch, func() (err error) {
		if ports, err = portNames(); err != nil {
			return err
		}
		fd, err = packetSocket(0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	c := &Capture{file: os.NewFile(uintptr(fd), "capture"), raw: fd, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { _ = c.file.SetReadDeadline(past) })
	go func() {
		defer close(c.done)
		defer stop()
		c.err = c.read(ports, each)
	}()
	return c, nil
}

// Stop ends the capture and waits for the last call of each. frames is how many there were. Frames that the kernel
// had to drop, because they were not read fast enough, make an error.
func (c *Capture) Stop() (frames int, err error) {
	c.once.Do(func() {
		_ = c.file.SetReadDeadline(past) // fails on a closed file only
		<-c.done
		stats, err := unix.GetsockoptTpacketStats(c.raw, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err == nil && stats.Drops > 0 {
			err = fmt.Errorf("%d frames were dropped unread", stats.Drops)
		}
		c.err = errors.Join(c.err, err, c.file.Close())
	})
	if c.err != nil {
		return c.Frames(), fmt.Errorf("capture: %w", c.err)
	}
	return c.Frames(), nil
}

// Frames is how many frames were seen so far.
func (c *Capture) Frames() int { return int(c.frames.Load()) }

// past is a deadline that ends a read at once.
var past = time.Unix(1, 0)

// read delivers frames until the deadline is set, and then what is still queued.
func (c *Capture) read(ports map[int]string, each func(Frame)) error {
	conn, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	r := receiver{data: make([]byte, 256<<10), oob: make([]byte, 256)}
	for last := false; ; {
		if last {
			err = conn.Control(func(fd uintptr) { r.receive(fd) })
		} else {
			err = conn.Read(r.receive)
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			last = true
			continue
		case err != nil:
			return err
		case errors.Is(r.err, unix.EAGAIN):
			return nil
		case errors.Is(r.err, unix.EINTR), errors.Is(r.err, unix.ENETDOWN): // a link went down
			continue
		case r.err != nil:
			return r.err
		case r.flags&unix.MSG_TRUNC != 0:
			return errors.New("a frame was larger than 256 KB")
		}
		addr, ok := r.from.(*unix.SockaddrLinklayer)
		if !ok || addr.Pkttype == unix.PACKET_OUTGOING || ports[addr.Ifindex] == "" {
			continue // the same frame on its way out, or on the bridge itself
		}
		each(Frame{Time: r.time(), From: ports[addr.Ifindex], Data: r.data[:r.n]})
		c.frames.Add(1)
	}
}

// receiver holds what one recvmsg gave.
type receiver struct {
	data, oob      []byte
	n, oobn, flags int
	from           unix.Sockaddr
	err            error
}

// receive says whether there is something to look at, as syscall.RawConn wants it.
func (r *receiver) receive(fd uintptr) bool {
	r.n, r.oobn, r.flags, r.from, r.err = unix.Recvmsg(int(fd), r.data, r.oob, unix.MSG_DONTWAIT)
	return !errors.Is(r.err, unix.EAGAIN)
}

// time is when the kernel saw the frame: a struct timespec of two 64-bit numbers (SO_TIMESTAMPNS in socket(7)).
func (r *receiver) time() time.Time {
	messages, err := unix.ParseSocketControlMessage(r.oob[:r.oobn])
	if err != nil {
		return time.Now()
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) == 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Now()
}

// portNames maps the index of each port of the switch to the host behind it.
func portNames() (map[int]string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list ports of the switch: %w", err)
	}
	ports := map[int]string{}
	for _, link := range links {
		if link.Name != bridgeName && link.Flags&net.FlagLoopback == 0 {
			ports[link.Index] = link.Name
		}
	}
	return ports, nil
}

// packetSocket opens a packet socket in the calling thread's namespace, for one link or, with 0, for all.
func packetSocket(link int) (int, error) {
	all := int(htons(unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: link}))
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	return fd, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// Inject sends an Ethernet frame from a host onto the underlay, as it is.
func (l *Lab) Inject(host string, frame []byte) error {
	err := l.inNet(host, func() error {
		link, err := net.InterfaceByName(uplink)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index})
	})
	if err != nil {
		return fmt.Errorf("inject frame from %s: %w", host, err)
	}
	return nil
}
