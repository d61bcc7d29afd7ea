package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/vishvananda/netlink"

	"weft/pkg/kstate"
	"weft/pkg/netns"
)

// Apply performs one operation. It may be repeated: adding what is there makes it as wanted, removing what is absent is
// success. An os.ErrNotExist says that the namespace or link that the item belongs to is missing; an os.ErrExist that
// something else has the name, or the VNI, that it needs.
func (k *Kernel) Apply(ctx context.Context, op kstate.Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.log.Debug("apply", "op", op.String())
	var err error
	if op.Verb == kstate.Remove {
		if err = translate(k.remove(ctx, op.Item)); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		err = translate(k.add(ctx, op))
	}
	if err != nil {
		return fmt.Errorf("%s %s in %s: %w", op.Verb, firstLine(op.Item.String()), show(op.Item.Key().NS), err)
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// add adds or changes.
func (k *Kernel) add(ctx context.Context, op kstate.Op) error {
	switch it := op.Item.(type) {
	case kstate.NetNS:
		return k.addNetNS(it)
	case kstate.WGDevice:
		key, ok := k.keyring(it.PublicKey)
		if !ok {
			return fmt.Errorf("the private key for %s is not on this node: %w", it.PublicKey, os.ErrNotExist)
		}
		return k.devices.SetDevice(it, key)
	case kstate.WGPeer:
		return k.addPeer(it)
	case kstate.Link:
		return k.addLink(ctx, it)
	}
	sp, err := k.spaces.get(op.Item.Key().NS)
	if err != nil {
		return err
	}
	switch it := op.Item.(type) {
	case kstate.Sysctl:
		return netns.Do(it.NS, func() error { return writeSysctl(it) })
	case kstate.Up:
		if err := sp.with(it.Link, func(l netlink.Link) error { return k.setUp(sp, l) }); err != nil {
			return err
		}
		if it.NS == kstate.Transit && strings.HasPrefix(it.Link, kstate.WGPrefix) {
			return k.initiate(it.Link) // peers set before could not: first contact must not wait for the first packet
		}
		return nil
	case kstate.Port:
		return sp.setPort(it)
	case kstate.Addr:
		return sp.with(it.Link, func(l netlink.Link) error { return sp.nl.AddrReplace(l, addr(it)) })
	case kstate.FDB:
		return sp.with(it.Link, func(l netlink.Link) error { return k.setFDB(sp, it, l) })
	case kstate.Neigh:
		return sp.with(it.Link, func(l netlink.Link) error { return sp.nl.NeighSet(neigh(it, l)) })
	case kstate.Route:
		return sp.with(it.Link, func(l netlink.Link) error { return sp.addRoute(it, l) })
	}
	return k.nft(sp, func() error { return sp.addNFT(op.Item) })
}

func (k *Kernel) remove(ctx context.Context, item kstate.Item) error {
	switch it := item.(type) {
	case kstate.NetNS:
		return k.removeNetNS(ctx, it)
	case kstate.WGDevice:
		return nil // it goes with its link
	case kstate.WGPeer:
		return k.devices.RemovePeer(it.Device, it.PublicKey)
	case kstate.Link:
		if it.Kind == kstate.KindWireGuard {
			return k.backend.Delete(ctx, it.Name)
		}
	case kstate.Sysctl:
		return nil // there is no "absent" for a kernel parameter
	}
	sp, err := k.spaces.get(item.Key().NS)
	if err != nil {
		return err
	}
	switch it := item.(type) {
	case kstate.Link:
		return sp.with(it.Name, sp.nl.LinkDel)
	case kstate.Up:
		if it.Link == "lo" && !ours(it.NS) {
			return nil // not ours to take down
		}
		return sp.with(it.Link, sp.nl.LinkSetDown)
	case kstate.Port:
		return sp.with(it.Link, sp.nl.LinkSetNoMaster)
	case kstate.Addr:
		return sp.with(it.Link, func(l netlink.Link) error { return sp.nl.AddrDel(l, addr(it)) })
	case kstate.FDB:
		return sp.with(it.Link, func(l netlink.Link) error { return k.removeFDB(sp, it, l) })
	case kstate.Neigh:
		return sp.with(it.Link, func(l netlink.Link) error { return sp.nl.NeighDel(neigh(it, l)) })
	case kstate.Route:
		return sp.removeRoute(it)
	}
	return k.nft(sp, func() error { return sp.removeNFT(item) })
}

// addNetNS makes a namespace of ours. An endpoint's is referenced by whoever attaches it, who alone knows where it is.
func (k *Kernel) addNetNS(it kstate.NetNS) error {
	if !ours(it.Name) {
		if ok, err := netns.Exists(it.Name); ok || err != nil {
			return err
		}
		return fmt.Errorf("nothing refers to the endpoint's namespace any more: %w", os.ErrNotExist)
	}
	if err := netns.Create(it.Name); err != nil {
		return err
	}
	// Links that come later get no link-local address of the kernel's (addr_gen_mode 1, IN6_ADDR_GEN_MODE_NONE).
	err := netns.Do(it.Name, func() error {
		return writeSysctl(kstate.Sysctl{Path: "net/ipv6/conf/default/addr_gen_mode", Value: "1"})
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no IPv6
	}
	return err
}

// removeNetNS deletes a namespace of ours; of an endpoint's only the reference goes.
func (k *Kernel) removeNetNS(ctx context.Context, it kstate.NetNS) error {
	if ours(it.Name) {
		if err := k.emptyNetNS(ctx, it.Name); err != nil {
			return err
		}
	}
	k.spaces.drop(it.Name) // our own sockets would keep it alive
	return netns.Delete(it.Name)
}

// emptyNetNS deletes the links in a namespace: its VNI and the far ends of its veths must be free at once, also when
// somebody's socket still holds the namespace, and the kernel takes its time in any case.
func (k *Kernel) emptyNetNS(ctx context.Context, name string) error {
	v, err := k.view(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range v.links {
		if l.name == "lo" || isFallback(l.name) {
			continue
		}
		if name == kstate.Transit && strings.HasPrefix(l.name, kstate.WGPrefix) {
			errs = append(errs, k.backend.Delete(ctx, l.name))
			continue
		}
		err := translate(v.nl.LinkDel(byIndex(l.index, l.name)))
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (k *Kernel) addPeer(it kstate.WGPeer) error {
	psk := k.psk(it.PublicKey)
	if it.Preshared != "" && psk == nil {
		return fmt.Errorf("the preshared key for %s is not on this node: %w", it.PublicKey, os.ErrNotExist)
	}
	if it.Preshared == "" {
		psk = nil
	}
	return k.devices.SetPeer(it, psk)
}

func writeSysctl(it kstate.Sysctl) error {
	f, err := sysctlFile(it.Path)
	if err != nil {
		return err
	}
	// Without O_CREATE: a missing parameter is a missing file, not a permission that procfs refuses.
	w, err := os.OpenFile(f, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = w.WriteString(it.Value)
	return errors.Join(err, w.Close())
}

// setUp takes a link up and makes it usable before it returns. Otherwise that happens later, up to a second (the kernel's
// linkwatch): until then a bridge forwards nothing to the port, and a far end drops what it sends. Asking for one link
// makes the kernel do the pending work of that link (linkwatch_sync_dev in rtnl_getlink, Linux 6.8; older ones wait).
func (k *Kernel) setUp(sp *space, l netlink.Link) error {
	if err := sp.nl.LinkSetUp(l); err != nil {
		return err
	}
	if l.Type() != string(kstate.KindVeth) {
		return nil
	}
	name := l.Attrs().Name
	_, _ = sp.nl.LinkByName(name) // only for its side effect
	far := kstate.Host
	if near, ok := strings.CutPrefix(name, "e"); ok && name != kstate.LegInside {
		far = kstate.EndpointPrefix + near
	}
	if other, err := k.spaces.get(far); err == nil && ours(sp.name) {
		_, _ = other.nl.LinkByIndex(l.Attrs().ParentIndex)
	}
	return nil
}

// with calls f with the named link.
func (s *space) with(name string, f func(netlink.Link) error) error {
	l, err := s.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, translate(err))
	}
	return f(l)
}

func byIndex(index int, name string) netlink.Link {
	attrs := netlink.NewLinkAttrs()
	attrs.Index, attrs.Name = index, name
	return &netlink.GenericLink{LinkAttrs: attrs}
}
