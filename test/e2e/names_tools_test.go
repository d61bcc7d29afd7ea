package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// change is one moment at which a name's addresses became others.
type change struct {
	Name  string
	At    time.Time
	Addrs []string // ordered; empty when there are none, "?" when nobody answered
}

// toolNames SERVER INTERVAL FILE NAME...: asks for the A records of each name in turn until FILE is gone, and prints
// every change.
func toolNames(args []string) (any, error) {
	if len(args) < 4 {
		return nil, errors.New("usage: names SERVER INTERVAL FILE NAME...")
	}
	interval, err := time.ParseDuration(args[1])
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	out := []change{}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for _, name := range args[3:] {
		wg.Go(func() {
			last := "none yet"
			for ctx.Err() == nil {
				addrs := askA(args[0], name)
				if s := strings.Join(addrs, " "); s != last {
					last = s
					mu.Lock()
					out = append(out, change{name, time.Now(), addrs})
					mu.Unlock()
				}
				time.Sleep(interval)
			}
		})
	}
	for {
		if _, err := os.Stat(args[2]); err != nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	wg.Wait()
	slices.SortFunc(out, func(x, y change) int { return x.At.Compare(y.At) })
	return out, nil
}

// askA asks a server once, with a packet made by hand: the resolvers of this machine keep answers.
func askA(server, name string) []string {
	c, err := net.Dial("udp", server)
	if err != nil {
		return []string{"?"}
	}
	defer c.Close()
	id := uint16(rand.Uint32())
	q := binary.BigEndian.AppendUint16(nil, id)
	q = append(q, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	for label := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	q = append(q, 0, 0, 1, 0, 1)
	if _, err := c.Write(q); err != nil {
		return []string{"?"}
	}
	if err := c.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		return []string{"?"}
	}
	b := make([]byte, 1500)
	n, err := c.Read(b)
	if err != nil || n < len(q) || binary.BigEndian.Uint16(b) != id || b[3]&0xf != 0 && b[3]&0xf != 3 {
		return []string{"?"}
	}
	addrs := []string{}
	for at := len(q); at+16 <= n && len(addrs) < int(binary.BigEndian.Uint16(b[6:])); at += 16 { // weft's own answers all point to the question
		addrs = append(addrs, netip.AddrFrom4([4]byte(b[at+12:at+16])).String())
	}
	slices.Sort(addrs)
	return addrs
}

// toolServe PORT FILE: answers HTTP on PORT until FILE is gone, then stays without listening, as a program that hangs.
func toolServe(args []string) (any, error) {
	if len(args) != 2 {
		return nil, errors.New("usage: serve PORT FILE")
	}
	l, err := net.Listen("tcp", ":"+args[0])
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 4096)
				if _, err := c.Read(b); err == nil {
					fmt.Fprint(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
				}
			}()
		}
	}()
	for {
		if _, err := os.Stat(args[1]); err != nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := l.Close(); err != nil {
		return nil, err
	}
	time.Sleep(time.Hour)
	return nil, nil
}

// toolLookup NAME: Go's own resolver, as /etc/resolv.conf says.
func toolLookup(args []string) (any, error) {
	r := net.Resolver{PreferGo: true}
	addrs, err := r.LookupHost(context.Background(), args[0])
	slices.Sort(addrs)
	return addrs, err
}
