package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"weft/pkg/engine/control"
	"weft/pkg/engine/frame"
	"weft/pkg/netns"
	"weft/pkg/overlay"
)

// vtep is the address of a node inside the mesh.
type vtep = [4]byte

// remote is what a network has behind one VTEP.
type remote struct {
	vtep  vtep
	outer frame.Outer
	counters
}

// fdb is one network's forwarding table, replaced as a whole when it changes.
type fdb struct {
	byMAC  map[uint64]*remote
	byVTEP map[vtep]*remote
}

// macKey is a MAC as a number; the first 8 bytes of b hold it.
func macKey(b []byte) uint64 {
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40
}

func keyMAC(k uint64) (m overlay.MAC) {
	for i := range m {
		m[i] = byte(k >> (8 * i))
	}
	return m
}

// network is one TAP with its forwarding table.
type network struct {
	control.TAP
	tap   *tapFile
	id    int32 // in the poller
	local vtep
	table atomic.Pointer[fdb]
	drops
	strangers

	change sync.Mutex // serialises changes of table

	layout layout // of the reader, as what follows
	small  int    // frames in a row that need no cutting
}

// openNetwork makes the TAP.
func openNetwork(t control.TAP, id int32) (*network, error) {
	switch {
	case t.VNI == 0 || t.VNI > frame.MaxVNI, !t.Local.Is4(), t.Port == 0, t.NetNS == "", t.MTU < minMTU, t.MTU > maxMTU:
		return nil, fmt.Errorf("%w: network %+v", errInvalid, t)
	}
	file, err := openTAP(t.NetNS, t.Name, t.MTU, unix.IFF_TAP|unix.IFF_VNET_HDR)
	if err != nil {
		return nil, err
	}
	n := &network{TAP: t, tap: file, id: id, local: t.Local.As4()}
	n.table.Store(&fdb{})
	return n, nil
}

var errInvalid = errors.New("invalid request")

// gone reports whether the link was deleted, or its namespace is no longer the one that has the name: then the file only
// keeps alive what nobody sees.
func (n *network) gone() bool {
	if n.tap.detached() {
		return true
	}
	inode, err := netns.Inode(netns.Path(n.NetNS))
	return errors.Is(err, fs.ErrNotExist) || err == nil && inode != n.tap.inode
}

// set puts MACs behind VTEPs.
func (n *network) set(entries []control.Entry) error {
	for _, e := range entries {
		if !e.VTEP.Is4() || e.MAC[0]&1 != 0 {
			return fmt.Errorf("%w: %s behind %s", errInvalid, e.MAC, e.VTEP)
		}
	}
	n.edit(func(byMAC map[uint64]*remote, behind func(vtep) *remote) {
		for _, e := range entries {
			byMAC[macKey(e.MAC[:])] = behind(e.VTEP.As4())
		}
	})
	return nil
}

// remove forgets MACs. One that has moved to another VTEP meanwhile stays.
func (n *network) remove(entries []control.Entry) error {
	n.edit(func(byMAC map[uint64]*remote, _ func(vtep) *remote) {
		for _, e := range entries {
			k := macKey(e.MAC[:])
			if r := byMAC[k]; r != nil && (!e.VTEP.IsValid() || e.VTEP == netip.AddrFrom4(r.vtep)) {
				delete(byMAC, k)
			}
		}
	})
	return nil
}

// edit changes a copy of the table and puts it in place.
func (n *network) edit(change func(byMAC map[uint64]*remote, behind func(vtep) *remote)) {
	n.change.Lock()
	defer n.change.Unlock()
	old := n.table.Load()
	t := &fdb{byMAC: maps.Clone(old.byMAC), byVTEP: map[vtep]*remote{}}
	if t.byMAC == nil {
		t.byMAC = map[uint64]*remote{}
	}
	made := map[vtep]*remote{}
	change(t.byMAC, func(v vtep) *remote {
		if r := old.byVTEP[v]; r != nil {
			return r // with its counters
		}
		if made[v] == nil {
			made[v] = &remote{vtep: v, outer: frame.NewOuter(n.local, v, uint32(n.VNI), n.Port)}
		}
		return made[v]
	})
	for _, r := range t.byMAC {
		t.byVTEP[r.vtep] = r // a VTEP is a member while something is behind it
	}
	n.table.Store(t)
}

// report describes the network.
func (n *network) report() control.Network {
	t := n.table.Load()
	out := control.Network{TAP: n.TAP, Index: n.tap.index, Inode: n.tap.inode, Drops: n.drops.report(), FDB: []control.Entry{}}
	for k, r := range t.byMAC {
		out.FDB = append(out.FDB, control.Entry{MAC: keyMAC(k), VTEP: netip.AddrFrom4(r.vtep)})
	}
	slices.SortFunc(out.FDB, func(a, b control.Entry) int { return slices.Compare(a.MAC[:], b.MAC[:]) })
	for v, r := range t.byVTEP {
		out.Peers = append(out.Peers, control.Peer{VTEP: netip.AddrFrom4(v), Drops: r.report(),
			RxPackets: r.rx.packets.Load(), RxBytes: r.rx.bytes.Load(), RxFrames: r.rx.frames.Load(),
			TxPackets: r.tx.packets.Load(), TxBytes: r.tx.bytes.Load(), TxFrames: r.tx.frames.Load()})
	}
	n.strangers.each(func(v vtep, d *drops) {
		if t.byVTEP[v] == nil {
			out.Peers = append(out.Peers, control.Peer{VTEP: netip.AddrFrom4(v), Drops: d.report()})
		}
	})
	slices.SortFunc(out.Peers, func(a, b control.Peer) int { return a.VTEP.Compare(b.VTEP) })
	return out
}

// codeOf translates for the control protocol.
func codeOf(err error) control.Code {
	switch {
	case errors.Is(err, errInvalid):
		return control.CodeInvalid
	case errors.Is(err, os.ErrExist):
		return control.CodeExist
	case errors.Is(err, os.ErrNotExist):
		return control.CodeNotExist
	}
	return control.CodeFailed
}
