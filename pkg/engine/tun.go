package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"

	"weft/pkg/netns"
)

const tunPath = "/dev/net/tun"

// openTUN makes the TUN inside the namespace, down. The name must be free there: an os.ErrExist otherwise.
func openTUN(ns, name string, mtu int) (*fixedTUN, error) {
	var dev tun.Device
	err := netns.Do(ns, func() error {
		fd, err := createTUN(name, mtu)
		if err != nil {
			return err
		}
		// Unmonitored: the monitoring variant follows the link's flags, with a netlink socket and a probe every
		// second. The device is up whenever the engine runs, and its MTU is the one it was started with.
		dev, _, err = tun.CreateUnmonitoredTUNFromFD(fd) // owns fd, also on error
		return err
	})
	if err != nil {
		return nil, err
	}
	return &fixedTUN{Device: dev, mtu: mtu}, nil
}

// createTUN must run inside the target namespace, where the file is opened as well as where the MTU is set.
func createTUN(name string, mtu int) (int, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: tunPath, Err: err}
	}
	if err := nameTUN(fd, name, mtu); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func nameTUN(fd int, name string, mtu int) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	// EXCL, or a persistent TUN that somebody left under the name would be taken over.
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("create %s: a link of this name is there already: %w", name, os.ErrExist)
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	if ifr, err = unix.NewIfreq(name); err != nil {
		return err
	}
	ifr.SetUint32(uint32(mtu))
	if err := unix.IoctlIfreq(sock, unix.SIOCSIFMTU, ifr); err != nil {
		return fmt.Errorf("set mtu of %s: %w", name, err)
	}
	return nil
}

// detachedEvery is how often the engine asks whether its TUN is still there.
const detachedEvery = 500 * time.Millisecond

// awaitDetached returns true when the link of a device has been deleted, false when ctx ends first. A reader alone may never notice:
// the kernel wakes it (tun_detach_all) just before it takes the link from the file, and a reader that is quick enough to
// look in between finds "nothing to read" and sleeps on, with nobody left to wake it. Seen once in 7 deletions on a busy
// machine.
func awaitDetached(ctx context.Context, t link) bool {
	tick := time.NewTicker(detachedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		if t.detached() {
			return true
		}
	}
}

// detached reports whether the link was deleted.
func (t *fixedTUN) detached() bool {
	raw, err := t.File().SyscallConn()
	if err != nil {
		return true
	}
	var asked error
	err = raw.Control(func(fd uintptr) {
		var ifr *unix.Ifreq
		if ifr, asked = unix.NewIfreq(""); asked == nil {
			asked = unix.IoctlIfreq(int(fd), unix.TUNGETIFF, ifr)
		}
	})
	return err != nil || errors.Is(asked, unix.EBADFD)
}

// fixedTUN knows its MTU without asking: the answer to the ioctl depends on which namespace the asking thread is in.
type fixedTUN struct {
	tun.Device
	mtu int
}

// MTU implements tun.Device.
func (t *fixedTUN) MTU() (int, error) { return t.mtu, nil }

// Read implements tun.Device. wireguard-go shuts the whole device down on a read error it does not know, and a packet
// whose offload header it cannot make sense of is such an error: here it costs that packet only. Errors of the system
// call itself stay fatal, they would come back at once.
func (t *fixedTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := t.Device.Read(bufs, sizes, offset)
	var errno syscall.Errno
	if err == nil || errors.Is(err, os.ErrClosed) || errors.As(err, &errno) {
		return n, err
	}
	return 0, tun.ErrTooManySegments // "drop what was read and go on"
}
