package kernel

import (
	"errors"
	"os"
	"strings"

	"github.com/vishvananda/netlink"

	"weft/pkg/engine/control"
	"weft/pkg/kstate"
)

// tapKey identifies a link anywhere on the host.
type tapKey struct {
	netns uint64 // inode
	index int
}

// taps are the engine's; nil when there is no Overlay.
type taps map[tapKey]*control.Network

// readTAPs asks the engine. Without an engine there are none; but a TUN of the engine's in the transit namespace lives
// only while the engine does, so where there is one, silence is an error.
func (k *Kernel) readTAPs(transit *view) (taps, error) {
	if k.overlay == nil {
		return nil, nil
	}
	networks, err := k.overlay.Networks()
	if errors.Is(err, os.ErrNotExist) && !hasEngine(transit) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	t := taps{}
	for i := range networks {
		n := &networks[i]
		t[tapKey{n.Inode, n.Index}] = n
	}
	return t, nil
}

func hasEngine(transit *view) bool {
	if transit == nil {
		return false
	}
	for _, l := range transit.links {
		if l.kind == "tun" && strings.HasPrefix(l.name, kstate.WGPrefix) && !l.vnetHdr {
			return true
		}
	}
	return false
}

func (t taps) find(v *view, l *rawLink) *control.Network { return t[tapKey{v.inode, l.index}] }

// tapFDB reads the forwarding entries of the engine's TAPs in a namespace.
func (o *observer) tapFDB(v *view) {
	for i := range v.links {
		l := &v.links[i]
		n := o.taps.find(v, l)
		if n == nil {
			continue
		}
		for _, e := range n.FDB {
			o.put(v.name, kstate.FDB{NS: v.name, Link: l.name, MAC: e.MAC, Dst: e.VTEP})
		}
	}
}

// ofEngine reports whether the link of a forwarding entry is the engine's.
func (k *Kernel) ofEngine(it kstate.FDB, l netlink.Link) bool {
	return k.overlay != nil && !it.Master && l.Type() == "tuntap"
}

func (k *Kernel) setFDB(sp *space, it kstate.FDB, l netlink.Link) error {
	if k.ofEngine(it, l) {
		return k.overlay.SetFDB(it)
	}
	return sp.nl.NeighSet(fdb(it, l))
}

func (k *Kernel) removeFDB(sp *space, it kstate.FDB, l netlink.Link) error {
	if k.ofEngine(it, l) {
		return k.overlay.RemoveFDB(it)
	}
	return sp.nl.NeighDel(fdb(it, l))
}
