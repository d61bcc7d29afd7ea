package engine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"weft/pkg/netns"
)

// Offloads of linux/if_tun.h.
const (
	offloadBase = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	offloadUSO  = unix.TUN_F_USO4 | unix.TUN_F_USO6 // Linux 6.2
)

// tapFile is a TAP or TUN that was born in a namespace: the file does the rest from outside.
type tapFile struct {
	fd, index int
	inode     uint64 // the namespace's
	mac       uint64

	inUse  sync.RWMutex // read-held while the file is used: its number must not become another's
	closed bool
}

// use keeps the file open until done; false when it is closed.
func (t *tapFile) use() bool {
	t.inUse.RLock()
	if t.closed {
		t.inUse.RUnlock()
		return false
	}
	return true
}

func (t *tapFile) done() { t.inUse.RUnlock() }

// close closes the file, and the link goes with it.
func (t *tapFile) close() {
	t.inUse.Lock()
	defer t.inUse.Unlock()
	if !t.closed {
		t.closed = true
		unix.Close(t.fd)
	}
}

// openTAP makes a device in the namespace ns, down, with an MTU in bytes. The name must be free there: an os.ErrExist
// otherwise. flags is IFF_TAP or IFF_TUN, with IFF_VNET_HDR for offloads.
func openTAP(ns, name string, mtu int, flags uint16) (t *tapFile, err error) {
	t = new(tapFile)
	err = netns.Do(ns, func() error {
		if t.inode, err = netns.Inode("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if t.fd, err = unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return &os.PathError{Op: "open", Path: tunPath, Err: err}
		}
		if t.index, err = setUpTAP(t.fd, name, mtu, flags); err != nil {
			unix.Close(t.fd)
			return err
		}
		if link, err := net.InterfaceByIndex(t.index); err == nil && len(link.HardwareAddr) == 6 {
			t.mac = macKey(link.HardwareAddr)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func setUpTAP(fd int, name string, mtu int, flags uint16) (index int, err error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	// EXCL, or a persistent device that somebody left under the name would be taken over.
	ifr.SetUint16(flags | unix.IFF_NO_PI | unix.IFF_TUN_EXCL)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) {
		return 0, fmt.Errorf("create %s: a link of this name is there already: %w", name, os.ErrExist)
	}
	if err != nil {
		return 0, fmt.Errorf("create %s: %w", name, err)
	}
	if flags&unix.IFF_VNET_HDR != 0 {
		if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadBase|offloadUSO) != nil {
			if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadBase); err != nil {
				return 0, fmt.Errorf("set offloads of %s: %w", name, err)
			}
		}
	}
	return configure(name, mtu)
}

// configure sets the MTU of a link in the thread's namespace, and finds its index.
func configure(name string, mtu int) (index int, err error) {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(sock)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	ifr.SetUint32(uint32(mtu))
	if err := unix.IoctlIfreq(sock, unix.SIOCSIFMTU, ifr); err != nil {
		return 0, fmt.Errorf("set mtu of %s: %w", name, err)
	}
	if err := unix.IoctlIfreq(sock, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, fmt.Errorf("find index of %s: %w", name, err)
	}
	return int(ifr.Uint32()), nil
}

// detached reports whether the link behind an open file has been deleted.
func (t *tapFile) detached() bool {
	if !t.use() {
		return true
	}
	defer t.done()
	ifr, err := unix.NewIfreq("")
	return err == nil && errors.Is(unix.IoctlIfreq(t.fd, unix.TUNGETIFF, ifr), unix.EBADFD)
}
