package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sunk is what toolSink saw of the checksums of the TCP and UDP packets that arrived.
type sunk struct {
	Good, Bad int
	Skipped   int // merged by the kernel, or fragments: nothing to check
}

// toolSink PORT COUNT answers streams with the sum of what they sent, and datagrams with themselves, until COUNT senders
// have said that they are done. It prints "ready" on stderr when it listens.
func toolSink(args []string) (any, error) {
	var senders int
	if _, err := fmt.Sscan(args[1], &senders); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp4", ":"+args[0])
	if err != nil {
		return nil, err
	}
	defer l.Close()
	u, err := net.ListenPacket("udp4", ":"+args[0])
	if err != nil {
		return nil, err
	}
	defer u.Close()
	watch, err := watchChecksums()
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(os.Stderr, "ready")
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(b[:n], from) // the sender notices
		}
	}()
	for senders > 0 {
		c, err := l.Accept()
		if err != nil {
			return nil, err
		}
		sum := sha256.New()
		n, err := io.Copy(sum, c)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			senders-- // an empty stream says goodbye
		}
		if _, err := c.Write(sum.Sum(nil)); err != nil {
			return nil, err
		}
		c.Close()
	}
	return watch(), nil
}

// streamed says what did not arrive as it was sent; empty for nothing.
type streamed struct{ Wrong string }

// toolStream ADDRESS:PORT sends streams of 1 byte to 300 kB and datagrams of 1 to 8000 bytes to a toolSink.
func toolStream(args []string) (any, error) {
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 300_000)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	for _, size := range []int{1, 1000, len(data)} {
		if err := streamTCP(args[0], data[:size]); err != nil {
			return streamed{fmt.Sprintf("stream of %d bytes: %v", size, err)}, nil
		}
	}
	for _, size := range []int{1, 500, 1342, 8000} { // 1342 fills a packet of 1370
		if err := datagram(args[0], data[:size]); err != nil {
			return streamed{fmt.Sprintf("datagram of %d bytes: %v", size, err)}, nil
		}
	}
	return streamed{}, streamTCP(args[0], nil)
}

func streamTCP(address string, data []byte) error {
	conn, err := net.DialTimeout("tcp4", address, slow(5*time.Second))
	if err != nil {
		return err
	}
	defer conn.Close()
	c := conn.(*net.TCPConn)
	if err := c.SetDeadline(time.Now().Add(slow(10 * time.Second))); err != nil {
		return err
	}
	if _, err := c.Write(data); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if want := sha256.Sum256(data); !bytes.Equal(got, want[:]) {
		return errors.New("arrived otherwise than it was sent")
	}
	return nil
}

func datagram(address string, data []byte) error {
	c, err := net.Dial("udp4", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(slow(2 * time.Second))); err != nil {
		return err
	}
	if _, err := c.Write(data); err != nil {
		return err
	}
	b := make([]byte, 65536)
	n, err := c.Read(b)
	if err != nil {
		return err
	}
	if !bytes.Equal(b[:n], data) {
		return errors.New("came back otherwise than it was sent")
	}
	return nil
}

// watchChecksums verifies, itself, the checksums of all IPv4 packets that arrive for this namespace, until the function
// that it returns is called. WireGuard in the kernel marks what it opened as already verified, and then nobody would.
func watchChecksums() (func() sunk, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(binary.NativeEndian.Uint16([]byte{0x08, 0x00})))
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	var s sunk
	var wait sync.WaitGroup
	stop := make(chan struct{})
	wait.Go(func() {
		defer unix.Close(fd)
		b, control := make([]byte, 65536), make([]byte, 256)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, cn, _, from, err := unix.Recvmsg(fd, b, control, 0)
			if l, ok := from.(*unix.SockaddrLinklayer); err != nil || !ok || l.Pkttype != unix.PACKET_HOST {
				continue
			}
			s.take(b[:n], unready(control[:cn]))
		}
	})
	return func() sunk { close(stop); wait.Wait(); return s }, nil
}

// unready reports TP_STATUS_CSUMNOTREADY (linux/if_packet.h): the checksum is yet to be filled in, as in a packet that the
// kernel merged from several.
func unready(control []byte) bool {
	const notReady = 1 << 3
	messages, err := syscall.ParseSocketControlMessage(control)
	for _, m := range messages {
		if err == nil && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 4 {
			return binary.NativeEndian.Uint32(m.Data)&notReady != 0
		}
	}
	return false
}

func (s *sunk) take(p []byte, unready bool) {
	if len(p) < 20 || p[9] != unix.IPPROTO_TCP && p[9] != unix.IPPROTO_UDP {
		return
	}
	head, total := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
	fragment := binary.BigEndian.Uint16(p[6:])&0x3fff != 0
	if unready || fragment || total > len(p) || head > total {
		s.Skipped++
		return
	}
	l4 := p[head:total]
	// The pseudo header (RFC 9293 section 3.1, RFC 768); a packet with its checksum in place sums up to zero.
	pseudo := append(append([]byte{}, p[12:20]...), 0, p[9], byte(len(l4)>>8), byte(len(l4)))
	switch {
	case p[9] == unix.IPPROTO_UDP && len(l4) >= 8 && l4[6] == 0 && l4[7] == 0:
		s.Bad++ // a sender that gives none; ours does
	case checksum(append(pseudo, l4...)) != 0:
		s.Bad++
	default:
		s.Good++
	}
}
