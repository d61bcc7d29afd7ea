package wireguard

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weft/keys"
)

// control reads and changes one device's configuration: the kernel's over netlink, an engine's over its socket.
type control interface {
	get() (status, error)
	set(patch) error
}

// status is what a device says about itself. The private key is not kept.
type status struct {
	public keys.PublicKey // zero: the device has no key
	port   uint16         // 0: none yet
	peers  []peerStatus
}

type peerStatus struct {
	key       keys.PublicKey
	endpoint  netip.AddrPort // zero: none known
	allowed   []netip.Prefix
	keepalive int // seconds
	psk       keys.PresharedKey
	handshake time.Time // zero: none yet
	rx, tx    uint64
}

// find returns the peer with that key.
func (s status) find(k keys.PublicKey) (peerStatus, bool) {
	i := slices.IndexFunc(s.peers, func(p peerStatus) bool { return p.key == k })
	if i < 0 {
		return peerStatus{}, false
	}
	return s.peers[i], true
}

// freshFor is how long a handshake proves the peer: REJECT_AFTER_TIME, WireGuard white paper section 6.1.
const freshFor = 180 * time.Second

// fresh compares wall clocks, for that is what handshakes are stamped with; one from the future counts as fresh.
func (p peerStatus) fresh(now time.Time) bool {
	return !p.handshake.IsZero() && now.Sub(p.handshake) < freshFor
}

// patch changes what it names and leaves the rest of the device alone.
type patch struct {
	key   *keys.PrivateKey
	port  *uint16
	peers []peerPatch // applied in order; a key may come more than once
}

// peerPatch changes one peer; unless remove is set, a peer that is not there is added.
type peerPatch struct {
	key        keys.PublicKey
	remove     bool
	psk        *keys.PresharedKey // the zero key clears it
	endpoint   netip.AddrPort     // zero: unchanged
	keepalive  *int
	allowed    []netip.Prefix // replaces all, when setAllowed
	setAllowed bool
	quiet      bool // write keepalive without initiating; only engines can
}

// empty reports whether the patch leaves a peer that exists as it is.
func (p peerPatch) empty() bool {
	return !p.remove && p.psk == nil && !p.endpoint.IsValid() && p.keepalive == nil && !p.setAllowed
}

// joinPrefixes is the form of kstate.WGPeer.AllowedIPs: sorted as text, comma-separated.
func joinPrefixes(ps []netip.Prefix) string {
	text := make([]string, len(ps))
	for i, p := range ps {
		text[i] = p.String()
	}
	slices.Sort(text)
	return strings.Join(text, ",")
}

// splitPrefixes reads joinPrefixes' form; "" is no prefix.
func splitPrefixes(s string) ([]netip.Prefix, error) {
	if s == "" {
		return nil, nil
	}
	var ps []netip.Prefix
	for _, f := range strings.Split(s, ",") {
		p, err := netip.ParsePrefix(f)
		if err != nil {
			return nil, fmt.Errorf("parse allowed IPs: %w", err)
		}
		ps = append(ps, p)
	}
	return ps, nil
}
