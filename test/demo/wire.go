package main

import (
	"bytes"
	"encoding/binary"
	"sync"

	"weft/pkg/lab"
)

// wire counts what crosses the underlay.
type wire struct {
	marker []byte

	mu                                    sync.Mutex
	frames, wireguard, vxlan, marked, own int
}

// see is called with each frame; own is Consul's and ARP, which are not the overlay's.
func (w *wire) see(f lab.Frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if bytes.Contains(f.Data, w.marker) {
		w.marked++
	}
	switch udpPort(f.Data) {
	case 51820, 51821:
		w.wireguard++
	case 4789:
		w.vxlan++
	default:
		w.own++
		return
	}
	w.frames++
}

// udpPort is the destination port of an IPv4 UDP packet, 0 for anything else.
func udpPort(b []byte) uint16 {
	if len(b) < 14+20+8 || binary.BigEndian.Uint16(b[12:]) != 0x0800 || b[14+9] != 17 {
		return 0
	}
	head := 14 + int(b[14]&15)*4
	if len(b) < head+8 {
		return 0
	}
	return binary.BigEndian.Uint16(b[head+2:])
}
