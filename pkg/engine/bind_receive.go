package engine

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// Receive
//
// The kernel joins packets of a flow that have one size (UDP_GRO, udp(7)) and gives them as one message with the size.
// Into one buffer they would have to be copied apart. So a message is received into many buffers with the size that is
// expected in each; when it is the right one, every packet is where it belongs.
//
// Two messages are received at a time, each with half of the buffers: a message is never more than 64 packets.

const (
	halves  = 2
	half    = batch / halves
	largest = 65535
)

// calm is after how many small frames or messages in a row the next is expected to be small as well. Then one buffer is
// laid out and not many, which the kernel would have to look at each time.
const calm = 8

// receiver receives from one socket; it belongs to one goroutine.
type receiver struct {
	socket  *socket
	guess   int // bytes in each buffer, for the next call
	laid    int // and for this one; largest: one buffer for a whole message
	small   int // messages of one packet in a row
	iov     [halves][half + 1]unix.Iovec
	msgs    [halves]mmsghdr
	control [halves][controlLen]byte
	names   [halves][sockaddrLen]byte
	spill   [halves][largest]byte
	scratch [largest]byte
	last    *endpoint
	got     int
	errno   unix.Errno
}

// receivePause follows an error of the system call.
const receivePause = 100 * time.Millisecond

// receive is a conn.ReceiveFunc.
func (r *receiver) receive(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	if r.guess == 0 {
		r.guess = 1500
	}
	r.laid = r.guess
	if r.small >= calm {
		r.laid = largest
	}
	for i := range halves {
		r.layOut(i, packets[i*half:])
	}
	if err := r.socket.raw.Read(r.attempt); err != nil {
		return 0, err // net.ErrClosed
	}
	if r.errno != 0 {
		// wireguard-go gives a socket up after some errors, or at once; then the engine would be deaf. What can go
		// wrong here (no memory) passes.
		time.Sleep(receivePause)
		return 0, nil
	}
	for i := range r.got {
		r.split(i, packets[i*half:(i+1)*half], sizes[i*half:(i+1)*half], eps[i*half:])
	}
	return r.got * half, nil
}

func (r *receiver) layOut(i int, packets [][]byte) {
	n := half + 1
	if r.laid == largest {
		n = 1
	}
	for k := range min(n, half) {
		r.iov[i][k] = iovec(packets[k][:r.laid])
	}
	r.iov[i][half] = iovec(r.spill[i][:])
	m := &r.msgs[i].hdr
	*m = unix.Msghdr{Name: &r.names[i][0], Namelen: sockaddrLen, Iov: &r.iov[i][0], Control: &r.control[i][0]}
	m.SetIovlen(n)
	m.SetControllen(controlLen)
}

// attempt is one system call; false waits until there is something to receive.
func (r *receiver) attempt(fd uintptr) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.msgs[0])), halves, unix.MSG_DONTWAIT, 0, 0)
	if errno == unix.EINTR {
		return r.attempt(fd)
	}
	r.got, r.errno = int(n), errno
	if errno != 0 {
		r.got = 0
	}
	return errno != unix.EAGAIN
}

// split finds the packets of message i.
func (r *receiver) split(i int, packets [][]byte, sizes []int, eps []conn.Endpoint) {
	clear(sizes)
	total := int(r.msgs[i].len)
	if total == 0 {
		return
	}
	size, pktinfo := r.parseControl(i)
	if size == 0 || size > total {
		size = total
	}
	ep := r.endpoint(i, pktinfo)
	if r.small++; total > size {
		r.small = 0
	}
	if size != r.laid && total > min(size, r.laid) {
		r.apart(i, total, size, packets)
	}
	for k := 0; total > 0 && k < len(sizes); k++ {
		sizes[k], eps[k] = min(size, total), ep
		total -= size
	}
}

// apart copies packets to their places when the guess was wrong, and makes a better one. A smaller one is taken only
// when there was much of it, or traffic of both kinds would change it all the time.
func (r *receiver) apart(i, total, size int, packets [][]byte) {
	b := r.scratch[:0]
	for k := 0; len(b) < total; k++ {
		piece := unsafeBytes(r.iov[i][k])
		b = append(b, piece[:min(len(piece), total-len(b))]...)
	}
	for k := 0; len(b) > 0 && k < len(packets); k++ {
		b = b[copy(packets[k], b[:min(size, len(b))]):]
	}
	if size > r.guess || size < r.guess && total > 16<<10 {
		r.guess = max(size, 64)
	}
}

// parseControl finds the size of the packets of message i, 0 for a single one, and where it was received.
func (r *receiver) parseControl(i int) (size int, pktinfo []byte) {
	b := r.control[i][:min(int(r.msgs[i].hdr.Controllen), controlLen)]
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(b) {
			break
		}
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && n >= unix.CmsgLen(2):
			size = int(binary.NativeEndian.Uint16(b[unix.CmsgLen(0):])) // an int on every kernel so far
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO, h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO:
			pktinfo = b[:min(len(b), unix.CmsgSpace(n-unix.CmsgLen(0)))]
		}
		b = b[min(len(b), unix.CmsgSpace(n-unix.CmsgLen(0))):]
	}
	return size, pktinfo
}

// endpoint describes the sender of message i; mostly it is the one of the message before.
func (r *receiver) endpoint(i int, pktinfo []byte) *endpoint {
	name := r.names[i][:]
	port := binary.BigEndian.Uint16(name[2:])
	var a netip.Addr
	if r.socket.is6 {
		a = netip.AddrFrom16([16]byte(name[8:24]))
		if index := binary.NativeEndian.Uint32(name[24:]); index != 0 {
			a = a.WithZone(strconv.Itoa(int(index)))
		}
	} else {
		a = netip.AddrFrom4([4]byte(name[4:8]))
	}
	addr := netip.AddrPortFrom(a, port)
	if l := r.last; l != nil && l.addr == addr && !l.cleared.Load() && slices.Equal(l.pktinfo, pktinfo) {
		return l
	}
	r.last = &endpoint{addr: addr, pktinfo: slices.Clone(pktinfo)}
	return r.last
}

// zoneIndex is the interface that a zone names, 0 for none.
func zoneIndex(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	return 0
}
