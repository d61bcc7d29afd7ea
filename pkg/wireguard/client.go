package wireguard

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"weft/keys"
	"weft/pkg/kstate"
)

// Client reads and changes the configuration of the WireGuard devices in the transit namespace, of both backends. It
// keeps no connection, so neither the namespace nor an engine has to be there before it is asked for. Safe for
// concurrent use.
//
// Errors: an os.ErrNotExist says that there is no such device, an os.ErrDeadlineExceeded that its engine does not
// answer (within 2 s); a port in use is a syscall.EADDRINUSE.
type Client struct {
	pokes *pokes
}

// NewClient returns a Client; Close it. It performs no I/O.
func NewClient() (*Client, error) {
	c := &Client{}
	c.pokes = newPokes(c.pokePeer)
	return c, nil
}

// Close drops the initiations that wait for their time. The devices stay as they are.
func (c *Client) Close() error {
	c.pokes.close()
	return nil
}

// PeerStats is what changes by itself about a peer.
type PeerStats struct {
	Device    string
	PublicKey keys.PublicKey
	// Endpoint is where the peer last proved to be, or where it was said to be; zero if neither.
	Endpoint netip.AddrPort
	// LastHandshake is a time of the wall clock; zero for never.
	LastHandshake time.Time
	Rx, Tx        uint64 // bytes since the peer was added
}

// Observe reads all weft's WireGuard devices, sorted by device and key. now, by the wall clock, decides which peers are
// Fresh. A device that cannot be read is an error that names it and voids the answer: a hung engine has peers, we just
// do not see them.
func (c *Client) Observe(now time.Time) (devices []kstate.WGDevice, peers []kstate.WGPeer, stats []PeerStats, err error) {
	links, err := listLinks()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("observe WireGuard: %w", err)
	}
	for _, l := range links {
		name := l.Attrs().Name
		s, err := controlOf(l).get()
		if err != nil {
			if _, gone := findLink(name); errors.Is(gone, os.ErrNotExist) {
				continue // deleted while we looked
			}
			return nil, nil, nil, fmt.Errorf("observe WireGuard device %s: %w", name, err)
		}
		devices = append(devices, kstate.WGDevice{NS: kstate.Transit, Name: name, PublicKey: s.public, Port: s.port})
		for _, p := range s.peers {
			peers = append(peers, p.item(name, now))
			stats = append(stats, PeerStats{name, p.key, p.endpoint, p.handshake, p.rx, p.tx})
		}
	}
	slices.SortFunc(devices, func(a, b kstate.WGDevice) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(peers, func(a, b kstate.WGPeer) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), slices.Compare(a.PublicKey[:], b.PublicKey[:]))
	})
	slices.SortFunc(stats, func(a, b PeerStats) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), slices.Compare(a.PublicKey[:], b.PublicKey[:]))
	})
	return devices, peers, stats, nil
}

func (p peerStatus) item(device string, now time.Time) kstate.WGPeer {
	return kstate.WGPeer{
		NS: kstate.Transit, Device: device, PublicKey: p.key, Endpoint: p.endpoint,
		AllowedIPs: joinPrefixes(p.allowed), Keepalive: p.keepalive, Preshared: p.psk.Fingerprint(), Fresh: p.fresh(now),
	}
}

func controlOf(l netlink.Link) control {
	if l.Type() == kernelType {
		return kernelControl{l.Attrs().Name}
	}
	return engineControl(l.Attrs().Name)
}

// open finds out how to talk to a device and reads it.
func (c *Client) open(device string) (control, status, error) {
	if err := checkName(device); err != nil {
		return nil, status{}, err
	}
	l, err := findLink(device)
	if err != nil {
		return nil, status{}, err
	}
	if l.Type() != kernelType && l.Type() != tunType {
		return nil, status{}, fmt.Errorf("link is of type %s, not WireGuard: %w", l.Type(), os.ErrExist)
	}
	ctl := controlOf(l)
	s, err := ctl.get()
	return ctl, s, err
}

// SetDevice gives the device its private key and port, writing only what differs: a port that is set again would cost
// the engine its sockets for a moment. key must be the private half of d.PublicKey, or nothing is done.
func (c *Client) SetDevice(d kstate.WGDevice, key keys.PrivateKey) error {
	if d.PublicKey.IsZero() || key.Public() != d.PublicKey {
		return fmt.Errorf("set WireGuard device %s: the private key does not belong to %s", d.Name, d.PublicKey.Short())
	}
	ctl, have, err := c.open(d.Name)
	if err != nil {
		return fmt.Errorf("set WireGuard device %s: %w", d.Name, err)
	}
	var p patch
	if have.public != d.PublicKey {
		p.key = &key
	}
	if have.port != d.Port {
		p.port = &d.Port
	}
	if p.key == nil && p.port == nil {
		return nil
	}
	if err := ctl.set(p); err != nil {
		return fmt.Errorf("set WireGuard device %s, port %d: %w", d.Name, d.Port, err)
	}
	return nil
}

// RemovePeer removes the peer; an absent peer, or device, is success.
func (c *Client) RemovePeer(device string, k keys.PublicKey) error {
	ctl, have, err := c.open(device)
	if errors.Is(err, os.ErrNotExist) {
		if _, gone := findLink(device); errors.Is(gone, os.ErrNotExist) {
			return nil
		}
	}
	if err == nil {
		if _, ok := have.find(k); !ok {
			return nil
		}
		err = ctl.set(patch{peers: []peerPatch{{key: k, remove: true}}})
	}
	if err != nil {
		return fmt.Errorf("remove WireGuard peer %s of %s: %w", k.Short(), device, err)
	}
	return nil
}
