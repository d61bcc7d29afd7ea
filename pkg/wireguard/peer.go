package wireguard

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"weft/keys"
	"weft/pkg/kstate"
)

// First contact
//
// WireGuard initiates when it has a packet to send, and retries an initiation that got no answer after 5 s
// (REKEY_TIMEOUT). When A's first packet comes before B knows A, B drops the initiation, and A's packets wait for the
// retry, unless B initiates as soon as it adds A. Writing a persistent keepalive where there was none makes both the
// kernel (set_peer) and wireguard-go (handlePostConfig) send a keepalive at once, and without a session that means
// an initiation. It needs the device up: for a kernel device that is set up before its link, Initiate does it again.
//
// But two initiations that cross on the wire destroy each other: each side turns responder, answers, and refuses the
// answer it gets, for it is no longer an initiator; then both wait 5 s.
//
//	A --init--\ /--init-- B          B learns of A while A learns of B: with everybody told by the same watch,
//	           X                     that is the usual case, and the window is one way's latency.
//	A <--resp-/ \-resp--> B   both refused
//
// So the two sides do not begin together: the one with the larger public key begins at once, the other yieldFor later,
// and not at all when a session is there by then. Where they crossed all the same (traffic initiates too), the side with
// the smaller key sees it recoverAfter later: it has received, for initiations count, and yet there was never a
// handshake. It takes the peer out and adds it again, in one request: a new peer owes no 5 s. What it had queued for the
// peer is lost with it.

// yieldFor is how long the side with the smaller key waits: more than a one-way trip inside a region plus the jitter of
// two agents, and little enough to answer a first packet within 200 ms.
const yieldFor = 60 * time.Millisecond

// recoverAfter is how long after an initiation a session should be there. Where a round trip takes longer, a handshake
// may be begun again that would have ended well; that costs one more round trip.
const recoverAfter = 100 * time.Millisecond

// SetPeer adds the peer or changes what differs. psk is the key that p.Preshared is the fingerprint of, nil for none. The endpoint of a peer
// whose session is fresh (a handshake in the last 3 minutes) is left alone: it is where the peer proved to be. Allowed
// IPs are replaced for this peer only. A peer that is new, or moved, or has no fresh session, is initiated to: at once,
// or after 60 ms when the other side has the larger key and is expected to begin.
func (c *Client) SetPeer(p kstate.WGPeer, psk *keys.PresharedKey) error {
	ctl, have, err := c.open(p.Device)
	if err == nil {
		err = c.setPeer(ctl, have, p, psk)
	}
	if err != nil {
		return fmt.Errorf("set WireGuard peer %s of %s: %w", p.PublicKey.Short(), p.Device, err)
	}
	return nil
}

func (c *Client) setPeer(ctl control, have status, want kstate.WGPeer, psk *keys.PresharedKey) error {
	if psk == nil {
		psk = &keys.PresharedKey{}
	}
	if want.Preshared != psk.Fingerprint() {
		return errors.New("preshared key and the peer's description disagree")
	}
	allowed, err := splitPrefixes(want.AllowedIPs)
	if err != nil {
		return err
	}
	old, known := have.find(want.PublicKey)
	fresh := old.fresh(time.Now())
	change := peerPatch{key: want.PublicKey}
	if !fresh && old.endpoint != want.Endpoint {
		change.endpoint = want.Endpoint
	}
	if joinPrefixes(old.allowed) != joinPrefixes(allowed) {
		change.allowed, change.setAllowed = allowed, true
	}
	if !old.psk.Equal(*psk) {
		change.psk = psk
	}
	if old.keepalive != want.Keepalive {
		change.keepalive = &want.Keepalive
	}
	if known && change.empty() {
		return nil
	}
	switch {
	case fresh || !want.Endpoint.IsValid():
		change.quiet = true
		return ctl.set(patch{peers: []peerPatch{change}})
	case yields(ctl, have.public, want):
		change.quiet = true
		if err := ctl.set(patch{peers: []peerPatch{change}}); err != nil {
			return err
		}
		c.pokes.later(peerID{want.Device, want.PublicKey})
		return nil
	}
	return ctl.set(patch{peers: initiation(change, old.keepalive, want.Keepalive)})
}

// yields reports whether the other side should begin. Kernel WireGuard cannot be given a keepalive without initiating,
// and a keepalive that is written later would look like a difference meanwhile; so there only peers without one yield.
func yields(ctl control, own keys.PublicKey, want kstate.WGPeer) bool {
	if _, engine := ctl.(uapi); !engine && want.Keepalive != 0 {
		return false
	}
	return !own.IsZero() && slices.Compare(own[:], want.PublicKey[:]) < 0
}

// initiation is change together with the keepalive writes that make the device initiate: to 0 if it is not, then to
// the wanted interval, or to 1 s and back when none is wanted. All go in one request, so no reader sees the middle.
func initiation(change peerPatch, old, want int) []peerPatch {
	steps := []int{max(want, 1)}
	if old != 0 {
		steps = []int{0, max(want, 1)}
	}
	if want == 0 {
		steps = append(steps, 0)
	}
	out := make([]peerPatch, len(steps))
	for i := range steps {
		out[i] = peerPatch{key: change.key, keepalive: &steps[i]}
	}
	change.keepalive, change.quiet = out[0].keepalive, false
	out[0] = change
	return out
}

// Initiate makes the device, which must be up, begin a handshake with every peer that has an endpoint and no fresh
// session. It is for the moment after a link came up: a kernel device that is down sends nothing. Repeated calls are
// harmless: WireGuard sends at most one initiation per peer in 5 s.
func (c *Client) Initiate(device string) error {
	ctl, have, err := c.open(device)
	if err != nil {
		return fmt.Errorf("initiate handshakes of %s: %w", device, err)
	}
	var p patch
	now := time.Now()
	for _, peer := range have.peers {
		id := peerID{device, peer.key}
		switch {
		case peer.fresh(now) || !peer.endpoint.IsValid() || c.pokes.waiting(id):
		case slices.Compare(have.public[:], peer.key[:]) < 0:
			c.pokes.later(id)
		default:
			p.peers = append(p.peers, initiation(peerPatch{key: peer.key}, peer.keepalive, peer.keepalive)...)
		}
	}
	if len(p.peers) == 0 {
		return nil
	}
	if err := ctl.set(p); err != nil {
		return fmt.Errorf("initiate handshakes of %s: %w", device, err)
	}
	return nil
}

// pokePeer begins a handshake unless there is a session by now; on the second attempt, with a new peer. Its errors go
// nowhere: the peer may be gone, which is fine, and a device that cannot be reached is what the next Observe reports.
func (c *Client) pokePeer(id peerID, attempt int) {
	ctl, have, err := c.open(id.device)
	if err != nil {
		return
	}
	peer, ok := have.find(id.key)
	if !ok || peer.fresh(time.Now()) || !peer.endpoint.IsValid() {
		return
	}
	if attempt == 0 {
		_ = ctl.set(patch{peers: initiation(peerPatch{key: id.key}, peer.keepalive, peer.keepalive)})
		return
	}
	if peer.rx == 0 || !peer.handshake.IsZero() {
		return // no sign that initiations crossed: the peer does not know us yet, or cannot be reached
	}
	again := peerPatch{key: id.key, psk: &peer.psk, endpoint: peer.endpoint, allowed: peer.allowed, setAllowed: true}
	_ = ctl.set(patch{peers: append([]peerPatch{{key: id.key, remove: true}}, initiation(again, 0, peer.keepalive)...)})
}
