package kernel

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"weft/keys"
	"weft/pkg/engine/control"
	"weft/pkg/kstate"
	"weft/pkg/wireguard"
)

// Devices configures the WireGuard devices in the transit namespace; *wireguard.Client is one.
type Devices interface {
	Observe(now time.Time) ([]kstate.WGDevice, []kstate.WGPeer, []wireguard.PeerStats, error)
	SetDevice(d kstate.WGDevice, key keys.PrivateKey) error
	SetPeer(p kstate.WGPeer, psk *keys.PresharedKey) error
	RemovePeer(device string, k keys.PublicKey) error
}

// Overlay realises the VXLAN devices of encrypted networks outside the kernel: each is a TAP of the engine's, in the same
// place and under the same name. *control.Client is one.
type Overlay interface {
	// Networks lists them; an os.ErrNotExist says that no engine runs.
	Networks() ([]control.Network, error)
	// AddLink makes one, or keeps the one that is there.
	AddLink(kstate.Link) error
	SetFDB(kstate.FDB) error
	RemoveFDB(kstate.FDB) error
}

// Config says how a Kernel works. Log and Backend are needed; the rest has defaults.
type Config struct {
	Log *slog.Logger
	// Backend makes WireGuard links.
	Backend wireguard.Backend
	// Overlay has the VXLAN devices whose underlay is the transit namespace; nil for the kernel's own.
	Overlay Overlay
	// Devices configures them; nil for a wireguard.Client of its own.
	Devices Devices
	// Initiate starts handshakes with all peers of a device that has come up; nil for the Client's, or for none when
	// Devices is given.
	Initiate func(device string) error
	// Keyring finds the private half of a public key of this node; nil for none.
	Keyring func(keys.PublicKey) (keys.PrivateKey, bool)
	// PSK is the preshared key for a peer, nil for none; nil for no preshared keys at all.
	PSK func(keys.PublicKey) *keys.PresharedKey
	// Now is the wall clock that decides whether a peer's handshake is fresh; nil for time.Now.
	Now func() time.Time
}

// Kernel reads and changes kernel state. "Host" is the network namespace of the process. Its methods are safe for
// concurrent use; they wait for each other.
type Kernel struct {
	log      *slog.Logger
	backend  wireguard.Backend
	overlay  Overlay
	devices  Devices
	initiate func(string) error
	keyring  func(keys.PublicKey) (keys.PrivateKey, bool)
	psk      func(keys.PublicKey) *keys.PresharedKey
	now      func() time.Time
	close    func() error

	mu     sync.Mutex // held by every exported method: a socket serves one question at a time
	spaces spaces
}

// New returns a Kernel; Close it. It opens no namespace yet.
func New(cfg Config) (*Kernel, error) {
	if cfg.Log == nil || cfg.Backend == nil {
		return nil, errors.New("open kernel: Log and Backend are needed")
	}
	k := &Kernel{log: cfg.Log, backend: cfg.Backend, overlay: cfg.Overlay, devices: cfg.Devices, initiate: cfg.Initiate, keyring: cfg.Keyring, psk: cfg.PSK, now: cfg.Now,
		close: func() error { return nil }, spaces: spaces{byName: map[string]*space{}}}
	if k.devices == nil {
		c, err := wireguard.NewClient()
		if err != nil {
			return nil, err
		}
		k.devices, k.close = c, c.Close
		if k.initiate == nil {
			k.initiate = c.Initiate
		}
	}
	if k.initiate == nil {
		k.initiate = func(string) error { return nil }
	}
	if k.keyring == nil {
		k.keyring = func(keys.PublicKey) (keys.PrivateKey, bool) { return keys.PrivateKey{}, false }
	}
	if k.psk == nil {
		k.psk = func(keys.PublicKey) *keys.PresharedKey { return nil }
	}
	if k.now == nil {
		k.now = time.Now
	}
	return k, nil
}

// Close closes all sockets. Nothing in the kernel changes.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.spaces.keep(nil)
	return k.close()
}

// PeerStats reads the counters of all WireGuard peers; none when there is no transit namespace.
func (k *Kernel) PeerStats(ctx context.Context) ([]wireguard.PeerStats, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	_, _, stats, err := k.wireGuard()
	return stats, err
}
