package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"weft/pkg/netns"
)

const (
	probeEvery = 2 * time.Millisecond
	probeLimit = 30 * time.Second
)

// probed is when a probe began, when its first reply came (both of the monotonic clock), and how many echoes it sent.
type probed struct {
	Start int64 `json:"start"`
	Reply int64 `json:"reply"`
	Sent  int   `json:"sent"`
}

// probeMain is the program that `weft run` starts: echoes to an address until the first reply.
func probeMain(args []string) int {
	p := probed{Start: monotonic()}
	err := errors.New("usage: probe ADDRESS")
	if len(args) == 1 {
		err = func() error {
			to, err := netip.ParseAddr(args[0])
			if err != nil {
				return err
			}
			c, err := listenICMP("")
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
			defer cancel()
			p.Reply, p.Sent, err = firstReply(ctx, c, to)
			return err
		}()
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(p)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench probe:", err)
		return 1
	}
	return 0
}

// listenICMP opens a socket for echoes in the namespace at path, "" for its own.
func listenICMP(path string) (c net.PacketConn, err error) {
	open := func() error {
		c, err = net.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	}
	if path == "" {
		err = open()
	} else {
		err = netns.DoPath(path, open)
	}
	if err != nil {
		return nil, fmt.Errorf("open ICMP socket: %w", err)
	}
	return c, nil
}

// firstReply sends an echo every 2 ms until one is answered. Sends that fail, as before there is an address, count
// as sent. It ends with an error when ctx does.
func firstReply(ctx context.Context, c net.PacketConn, to netip.Addr) (at int64, sent int, err error) {
	replied := make(chan int64, 1)
	go func() { // ends with the first reply or when c is closed
		if _, err := readReply(c, to); err == nil {
			replied <- monotonic()
		}
	}()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		_, _ = c.WriteTo(echo(uint16(sent)), &net.IPAddr{IP: to.AsSlice()})
		sent++
		select {
		case at := <-replied:
			return at, sent, nil
		case <-ctx.Done():
			return 0, sent, fmt.Errorf("no reply from %s to %d echoes: %w", to, sent, ctx.Err())
		case <-tick.C:
		}
	}
}

// roundTrips sends count echoes, one every interval, and gives the round trips in microseconds. Lost ones are left out.
func roundTrips(c net.PacketConn, to netip.Addr, count int, interval time.Duration) ([]float64, error) {
	var out []float64
	for seq := range count {
		begin := monotonic()
		if _, err := c.WriteTo(echo(uint16(seq)), &net.IPAddr{IP: to.AsSlice()}); err != nil {
			return nil, fmt.Errorf("ping %s: %w", to, err)
		}
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return nil, fmt.Errorf("ping %s: %w", to, err)
		}
		for {
			got, err := readReply(c, to)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("ping %s: %w", to, err)
			}
			if got == uint16(seq) {
				out = append(out, float64(monotonic()-begin)/1e3)
				break
			}
		}
		time.Sleep(interval - time.Duration(monotonic()-begin))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("ping %s: none of %d answered", to, count)
	}
	return out, nil
}

// echoID is in our echoes: a raw socket hears the replies to everybody's.
var echoID = uint16(os.Getpid())

func echo(seq uint16) []byte {
	m := make([]byte, 16)
	m[0] = 8 // echo request (RFC 792)
	binary.BigEndian.PutUint16(m[4:], echoID)
	binary.BigEndian.PutUint16(m[6:], seq)
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	return m
}

// readReply waits for an echo reply to us and gives its sequence number.
func readReply(c net.PacketConn, to netip.Addr) (seq uint16, err error) {
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return 0, err
		}
		ip, ok := from.(*net.IPAddr)
		if seq, is := parseReply(b[:n]); ok && is && ip.IP.Equal(to.AsSlice()) {
			return seq, nil
		}
	}
}

// parseReply reports whether an ICMP message is an echo reply to us.
func parseReply(m []byte) (seq uint16, ok bool) {
	if len(m) < 8 || m[0] != 0 || m[1] != 0 || binary.BigEndian.Uint16(m[4:]) != echoID {
		return 0, false
	}
	return binary.BigEndian.Uint16(m[6:]), true
}

// checksum is that of RFC 1071, for messages of even length.
func checksum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}
