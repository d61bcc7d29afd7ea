package wireguard

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"

	"weft/pkg/kstate"
	"weft/pkg/netns"
)

// Kernel is the backend that uses the kernel's own WireGuard.
func Kernel() Backend { return kernelBackend{} }

type kernelBackend struct{}

func (kernelBackend) Name() string { return KernelName }

// Create asks from the process's own namespace for a link in another one. WireGuard remembers the namespace of the
// socket that the request came through (wg_newlink, creating_net) and opens its UDP sockets there, also after the link
// has been moved or was born elsewhere; so the link is never seen in the host namespace.
func (kernelBackend) Create(ctx context.Context, name string, mtu int) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("create WireGuard device: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := addWireGuard(kstate.Transit, name, mtu)
	if errors.Is(err, os.ErrExist) {
		err = adoptKernel(name, mtu)
	}
	if err != nil {
		return fmt.Errorf("create WireGuard device %s: %w", name, err)
	}
	return nil
}

func (kernelBackend) Delete(_ context.Context, name string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("delete WireGuard device: %w", err)
	}
	return deleteLink(name)
}

func adoptKernel(name string, mtu int) error {
	return inTransit(func(h *netlink.Handle) error {
		l, err := h.LinkByName(name)
		if err != nil {
			return translate(err)
		}
		if l.Type() != kernelType {
			return fmt.Errorf("a %s link has the name: %w", l.Type(), os.ErrExist)
		}
		if l.Attrs().MTU == mtu {
			return nil
		}
		return h.LinkSetMTU(l, mtu)
	})
}

// addWireGuard makes a WireGuard link in the namespace ns; mtu 0 leaves the kernel's default.
func addWireGuard(ns, name string, mtu int) error {
	target, err := os.Open(netns.Path(ns))
	if err != nil {
		return err
	}
	defer target.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Namespace = name, mtu, netlink.NsFd(int(target.Fd()))
	return translate(netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs}))
}

// scratchNS is where probeKernel tries. One left by a crash is put to use by the next probe.
const scratchNS = "weft-probe"

// probeKernel reports nil when the kernel can make WireGuard links, an errors.ErrUnsupported when it cannot. A module
// that is there but not loaded gets loaded by the attempt.
func probeKernel(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := netns.Create(scratchNS); err != nil {
		return err
	}
	err := addWireGuard(scratchNS, kstate.WGPrefix+"0", 0)
	if errors.Is(err, os.ErrExist) {
		err = nil // of an interrupted probe
	}
	return errors.Join(err, netns.Delete(scratchNS)) // the link goes with its namespace
}
