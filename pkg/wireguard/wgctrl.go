package wireguard

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weft/keys"
	"weft/pkg/kstate"
	"weft/pkg/netns"
)

// kernelControl is the control of a kernel device. Each request opens its own netlink socket: a socket belongs to one
// namespace for life, and the transit namespace may be taken down and made again under the agent.
type kernelControl struct{ device string }

func (k kernelControl) get() (s status, err error) {
	err = k.do(func(c *wgctrl.Client) error {
		d, err := c.Device(k.device)
		if err != nil {
			return err
		}
		s = fromDevice(d)
		return nil
	})
	return s, err
}

func (k kernelControl) set(p patch) error {
	return k.do(func(c *wgctrl.Client) error { return c.ConfigureDevice(k.device, toConfig(p)) })
}

func (k kernelControl) do(fn func(*wgctrl.Client) error) error {
	return netns.Do(kstate.Transit, func() error {
		c, err := wgctrl.New()
		if err != nil {
			return fmt.Errorf("open WireGuard control: %w", err)
		}
		defer c.Close()
		return fn(c)
	})
}

func fromDevice(d *wgtypes.Device) status {
	s := status{port: uint16(d.ListenPort)}
	if d.PrivateKey != (wgtypes.Key{}) { // the public half of "no key" is a key like any other
		s.public = keys.PublicKey(d.PublicKey)
	}
	for _, p := range d.Peers {
		s.peers = append(s.peers, fromPeer(p))
	}
	return s
}

func fromPeer(p wgtypes.Peer) peerStatus {
	out := peerStatus{
		key:       keys.PublicKey(p.PublicKey),
		keepalive: int(p.PersistentKeepaliveInterval / time.Second),
		rx:        uint64(p.ReceiveBytes),
		tx:        uint64(p.TransmitBytes),
	}
	if p.PresharedKey != (wgtypes.Key{}) {
		out.psk, _ = keys.PresharedKeyFrom(p.PresharedKey) // refuses nothing but zero
	}
	if p.LastHandshakeTime.Unix() > 0 { // the kernel's "never" is second 0
		out.handshake = p.LastHandshakeTime
	}
	if p.Endpoint != nil {
		a := p.Endpoint.AddrPort()
		out.endpoint = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	for _, n := range p.AllowedIPs {
		addr, _ := netip.AddrFromSlice(n.IP)
		bits, size := n.Mask.Size()
		if size == 32 {
			addr = addr.Unmap()
		}
		out.allowed = append(out.allowed, netip.PrefixFrom(addr, bits))
	}
	return out
}

func toConfig(p patch) wgtypes.Config {
	var cfg wgtypes.Config
	if p.key != nil {
		k := wgtypes.Key(p.key.Reveal())
		cfg.PrivateKey = &k
	}
	if p.port != nil {
		n := int(*p.port)
		cfg.ListenPort = &n
	}
	for _, peer := range p.peers {
		cfg.Peers = append(cfg.Peers, toPeerConfig(peer))
	}
	return cfg
}

func toPeerConfig(p peerPatch) wgtypes.PeerConfig {
	c := wgtypes.PeerConfig{PublicKey: wgtypes.Key(p.key)}
	if p.remove {
		c.Remove, c.UpdateOnly = true, true // or an absent peer would be made first
		return c
	}
	if p.psk != nil {
		k := wgtypes.Key(p.psk.Reveal())
		c.PresharedKey = &k
	}
	if p.endpoint.IsValid() {
		c.Endpoint = net.UDPAddrFromAddrPort(p.endpoint)
	}
	if p.keepalive != nil {
		d := time.Duration(*p.keepalive) * time.Second
		c.PersistentKeepaliveInterval = &d
	}
	c.ReplaceAllowedIPs = p.setAllowed
	for _, a := range p.allowed {
		c.AllowedIPs = append(c.AllowedIPs, net.IPNet{
			IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen()),
		})
	}
	return c
}
