package wireguard

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/pkg/kstate"
	"weft/pkg/netns"
)

// Link types, as the kernel reports them.
const (
	kernelType = "wireguard"
	tunType    = "tuntap" // netlink's word for a TUN or TAP
)

// inTransit runs fn with a netlink handle of the transit namespace; an absent namespace is an os.ErrNotExist.
func inTransit(fn func(h *netlink.Handle) error) error {
	return netns.Do(kstate.Transit, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer h.Close()
		return fn(h)
	})
}

// findLink returns the link of that name in the transit namespace, or an os.ErrNotExist.
func findLink(name string) (link netlink.Link, err error) {
	err = inTransit(func(h *netlink.Handle) error {
		link, err = h.LinkByName(name)
		return translate(err)
	})
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	return link, nil
}

// listLinks returns the WireGuard devices in the transit namespace, of either backend. No namespace, no devices.
func listLinks() ([]netlink.Link, error) {
	there, err := netns.Exists(kstate.Transit)
	if err != nil || !there {
		return nil, err
	}
	var ours []netlink.Link
	err = inTransit(func(h *netlink.Handle) error {
		links, err := retryDump(h.LinkList)
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Name, kstate.WGPrefix) && (l.Type() == kernelType || l.Type() == tunType) {
				ours = append(ours, l)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list links in %s: %w", kstate.Transit, err)
	}
	return ours, nil
}

// maxDumps bounds how often a dump that a change interrupted is asked for again.
const maxDumps = 8

func retryDump(dump func() ([]netlink.Link, error)) (links []netlink.Link, err error) {
	for range maxDumps {
		if links, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return links, nil
}

// deleteLink removes the link from the transit namespace; absence of either is success.
func deleteLink(name string) error {
	err := inTransit(func(h *netlink.Handle) error {
		l, err := h.LinkByName(name)
		if err != nil {
			return translate(err)
		}
		return translate(h.LinkDel(l))
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

// translate maps what netlink reports to the sentinels of package os. EPERM is os.ErrPermission and EEXIST is
// os.ErrExist by themselves.
func translate(err error) error {
	var absent netlink.LinkNotFoundError
	switch {
	case errors.As(err, &absent), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: %w", os.ErrNotExist, err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w (load the module wireguard, or set wireguard.backend to engine): %w",
			errors.ErrUnsupported, err)
	}
	return err
}
