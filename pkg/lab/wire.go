package lab

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	bridgeName = "br0"  // in the switch; its ports are named after the hosts
	uplink     = "eth0" // of every host
)

// netNS opens a host's network namespace.
func (h Host) netNS() (*os.File, error) {
	f, err := os.Open(procPath(h.PID, "ns", "net"))
	if err == nil && !(process{h.PID, h.Start}).alive() {
		f.Close()
		err = os.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace of %s: %w", h.Name, err)
	}
	return f, nil
}

// inNet runs fn on a thread of its own in a host's network namespace. Sockets that fn opens stay there; fn must not
// start goroutines that open more.
func (l *Lab) inNet(host string, fn func() error) error {
	h, err := l.live(host)
	if err != nil {
		return err
	}
	ns, err := h.netNS()
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace of %s: %w", host, err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// handle opens rtnetlink in a host's network namespace.
func handle(ns *os.File) (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(netns.NsHandle(int(ns.Fd())), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return h, nil
}

// wire joins all hosts to the switch. Every link is made inside the hosts' namespaces; the machine's own has none of
// them at any time.
func (l *Lab) wire() error {
	var sw Host
	for _, h := range l.state.Hosts {
		if h.Name == Switch {
			sw = h
		}
	}
	ns, err := sw.netNS()
	if err != nil {
		return err
	}
	defer ns.Close()
	nl, err := handle(ns)
	if err != nil {
		return err
	}
	defer nl.Close()
	bridge, err := makeBridge(nl, l.state.MTU)
	if err != nil {
		return err
	}
	for _, h := range l.state.Hosts {
		if !h.Address.IsValid() {
			continue
		}
		if err := wireHost(h, l.state.MTU, ns); err != nil {
			return err
		}
		if err := plug(nl, bridge, h.Name); err != nil {
			return err
		}
	}
	return nil
}

func makeBridge(nl *netlink.Handle, mtu int) (netlink.Link, error) {
	off := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = bridgeName, mtu
	if err := nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}); err != nil {
		return nil, fmt.Errorf("make bridge of the switch: %w", err)
	}
	bridge, err := nl.LinkByName(bridgeName)
	if err == nil {
		err = nl.LinkSetUp(bridge)
	}
	if err != nil {
		return nil, fmt.Errorf("make bridge of the switch: %w", err)
	}
	return bridge, nil
}

func plug(nl *netlink.Handle, bridge netlink.Link, name string) error {
	port, err := nl.LinkByName(name)
	if err == nil {
		err = nl.LinkSetMaster(port, bridge)
	}
	if err == nil {
		err = nl.LinkSetUp(port)
	}
	if err != nil {
		return fmt.Errorf("plug %s into the switch: %w", name, err)
	}
	return nil
}

// wireHost gives a host its uplink, with the far end in the switch, its address and a default route that leads nowhere.
func wireHost(h Host, mtu int, sw *os.File) error {
	ns, err := h.netNS()
	if err != nil {
		return err
	}
	defer ns.Close()
	nl, err := handle(ns)
	if err != nil {
		return err
	}
	defer nl.Close()
	mac, err := net.ParseMAC(h.MAC)
	if err != nil {
		return fmt.Errorf("wire %s: %w", h.Name, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = uplink, mtu, mac
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace, veth.PeerMTU = h.Name, netlink.NsFd(int(sw.Fd())), uint32(mtu)
	if err := nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("make link of %s: %w", h.Name, err)
	}
	if err := address(nl, h); err != nil {
		return fmt.Errorf("wire %s: %w", h.Name, err)
	}
	return nil
}

func address(nl *netlink.Handle, h Host) error {
	for _, name := range []string{"lo", uplink} {
		link, err := nl.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if name == uplink {
			ip := &net.IPNet{IP: h.Address.AsSlice(), Mask: net.CIDRMask(underlay.Bits(), 32)}
			if err := nl.AddrAdd(link, &netlink.Addr{IPNet: ip}); err != nil {
				return fmt.Errorf("add address %v: %w", ip, err)
			}
		}
		if err := nl.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
	}
	if err := nl.RouteAdd(&netlink.Route{Gw: deadGateway.AsSlice()}); err != nil {
		return fmt.Errorf("add default route: %w", err)
	}
	return nil
}
