package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"weft/keys"
)

// The peers that weft is compared to: a stock wireguard-go between the hosts, at layer 3, and a kernel VXLAN over it.
//
//	n1 benchwg 192.168.201.1 ---- wireguard-go, UDP 51900 ---- benchwg 192.168.201.2 n2
//	n1 benchvx 192.168.202.1 ---- VXLAN 99, UDP 4790 -------- benchvx 192.168.202.2 n2
const (
	tunnelDevice = "benchwg"
	tunnelPort   = 51900
	tunnelMTU    = 1420 // 1500 less 80: wireguard-go's own default
	vxlanDevice  = "benchvx"
	vxlanID      = 99
	vxlanPort    = 4790
	vxlanMTU     = tunnelMTU - 50
)

func tunnelAddress(host int) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, 201, byte(host)}) }
func vxlanAddress(host int) netip.Addr  { return netip.AddrFrom4([4]byte{192, 168, 202, byte(host)}) }

// toPeer is one end of the tunnel. Its keys are made for one run of the bench.
type toPeer struct {
	Program string     `json:"program"`
	Self    int        `json:"self"` // 1 or 2
	Private string     `json:"private"`
	Public  string     `json:"public"` // the other's
	Remote  netip.Addr `json:"remote"` // underlay address of the other
}

// tunnel is where n2 is reached.
type tunnel struct{ layer3, vxlan netip.Addr }

// peers sets the peers up on both hosts.
func (s *stage) peers(program string) (tunnel, error) {
	var private [2]keys.PrivateKey
	for i := range private {
		var err error
		if private[i], err = keys.NewPrivateKey(); err != nil {
			return tunnel{}, err
		}
	}
	for i, h := range []*hand{s.n1(), s.n2()} {
		far, err := s.lab.Host(s.lab.Nodes()[1-i])
		if err != nil {
			return tunnel{}, err
		}
		own, other := private[i].Reveal(), private[1-i].Public()
		_, err = ask[nothing](h, "peer", toPeer{Program: program, Self: i + 1, Private: hex.EncodeToString(own[:]),
			Public: hex.EncodeToString(other[:]), Remote: far.Address})
		if err != nil {
			return tunnel{}, err
		}
	}
	return tunnel{tunnelAddress(2), vxlanAddress(2)}, nil
}

// peer sets one end up, inside a host.
func (w *worker) peer(p toPeer) (nothing, error) {
	cmd := exec.Command(p.Program, tunnelDevice)
	// In the foreground it stays our child, and ends with us.
	cmd.Env = append(os.Environ(), "WG_PROCESS_FOREGROUND=1", "LOG_LEVEL=error")
	if err := cmd.Start(); err != nil {
		return nothing{}, fmt.Errorf("start wireguard-go: %w", err)
	}
	w.peers = append(w.peers, cmd)
	other := 3 - p.Self
	config := fmt.Sprintf("set=1\nprivate_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%s\nallowed_ip=%s/32\n\n",
		p.Private, tunnelPort, p.Public, netip.AddrPortFrom(p.Remote, tunnelPort), tunnelAddress(other))
	if err := configure(config); err != nil {
		return nothing{}, err
	}
	link, err := netlink.LinkByName(tunnelDevice)
	if err != nil {
		return nothing{}, fmt.Errorf("find %s: %w", tunnelDevice, err)
	}
	if err := netlink.LinkSetMTU(link, tunnelMTU); err != nil {
		return nothing{}, fmt.Errorf("set MTU of %s: %w", tunnelDevice, err)
	}
	if err := setUp(link, tunnelAddress(p.Self)); err != nil {
		return nothing{}, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = vxlanDevice, vxlanMTU
	vx := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: vxlanID, Port: vxlanPort,
		SrcAddr: tunnelAddress(p.Self).AsSlice(), Group: tunnelAddress(other).AsSlice()}
	if err := netlink.LinkAdd(vx); err != nil {
		return nothing{}, fmt.Errorf("make %s: %w", vxlanDevice, err)
	}
	return nothing{}, setUp(vx, vxlanAddress(p.Self))
}

func setUp(link netlink.Link, address netip.Addr) error {
	name := link.Attrs().Name
	ip := &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(24, 32)}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("add address to %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// configure speaks to wireguard-go's control socket (wireguard.com/xplatform), which is there a moment after its start.
func configure(config string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		c, err := net.Dial("unix", "/var/run/wireguard/"+tunnelDevice+".sock")
		if err == nil {
			defer c.Close()
			if err := c.SetDeadline(deadline); err != nil {
				return fmt.Errorf("configure wireguard-go: %w", err)
			}
			return exchange(c, config)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("configure wireguard-go: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func exchange(c net.Conn, config string) error {
	if _, err := c.Write([]byte(config)); err != nil {
		return fmt.Errorf("configure wireguard-go: %w", err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return fmt.Errorf("configure wireguard-go: %w", err)
	}
	if strings.TrimSpace(line) != "errno=0" {
		return errors.New("configure wireguard-go: " + strings.TrimSpace(line))
	}
	return nil
}
