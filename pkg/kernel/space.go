package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weft/pkg/netns"
)

// space is one network namespace with the sockets that were opened in it. Sockets stay in the namespace they were
// opened in, so only opening enters it.
type space struct {
	name  string
	inode uint64
	file  *os.File // the namespace itself, for attributes that take a file descriptor
	nl    *netlink.Handle
	raw   *nl.SocketHandle
	nft   *nftables.Conn
	nfgen *nl.SocketHandle // asks nftables for its generation number, which nft cannot
}

// spaces caches a space per name. The inode tells a namespace from another that has since taken its name.
type spaces struct {
	mu     sync.Mutex
	byName map[string]*space
}

// get returns the space of a namespace; an os.ErrNotExist when there is no such namespace.
func (s *spaces) get(name string) (*space, error) {
	inode, err := netns.Inode(netns.Path(name))
	if err != nil {
		s.drop(name)
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sp := s.byName[name]; sp != nil {
		if sp.inode == inode {
			return sp, nil
		}
		sp.close()
		delete(s.byName, name)
	}
	sp, err := openSpace(name)
	if err != nil {
		return nil, err
	}
	s.byName[name] = sp
	return sp, nil
}

// drop closes what is cached for a namespace.
func (s *spaces) drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sp := s.byName[name]; sp != nil {
		sp.close()
		delete(s.byName, name)
	}
}

// keep drops all but the named namespaces.
func (s *spaces) keep(names map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, sp := range s.byName {
		if !names[name] {
			sp.close()
			delete(s.byName, name)
		}
	}
}

func openSpace(name string) (*space, error) {
	sp := &space{name: name}
	err := netns.Do(name, func() error {
		var err error
		if sp.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if sp.inode, err = netns.Inode("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if sp.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		sock, err := nl.GetNetlinkSocketAt(vnetns.None(), vnetns.None(), unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		sp.raw = &nl.SocketHandle{Socket: sock}
		// Strict checking lets the kernel filter dumps as asked and take RTEXT_FILTER_SKIP_STATS.
		if err := unix.SetsockoptInt(sock.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err != nil {
			return fmt.Errorf("ask for strict netlink checking: %w", err)
		}
		if sock, err = nl.GetNetlinkSocketAt(vnetns.None(), vnetns.None(), unix.NETLINK_NETFILTER); err != nil {
			return err
		}
		sp.nfgen = &nl.SocketHandle{Socket: sock}
		if sp.nft, err = nftables.New(nftables.AsLasting()); err != nil {
			return err
		}
		return sp.nl.SetStrictCheck(true)
	})
	if err != nil {
		sp.close()
		return nil, fmt.Errorf("open namespace %s: %w", show(name), err)
	}
	return sp, nil
}

func (s *space) close() {
	if s.nl != nil {
		s.nl.Close()
	}
	if s.raw != nil {
		s.raw.Close()
	}
	if s.nfgen != nil {
		s.nfgen.Close()
	}
	if s.nft != nil {
		_ = s.nft.CloseLasting() // a socket: nothing is lost
	}
	if s.file != nil {
		_ = s.file.Close()
	}
}

// fd is the namespace as netlink attributes take it.
func (s *space) fd() netlink.NsFd { return netlink.NsFd(s.file.Fd()) }

func show(name string) string {
	if name == "" {
		return "(host)"
	}
	return name
}

// dumpTries bounds the repetition of a dump that a change interrupted. Ours is a quiet machine or a broken one.
const dumpTries = 10

// dump repeats read while the kernel says that its answer mixes two states (NLM_F_DUMP_INTR).
func dump[T any](ctx context.Context, read func() (T, error)) (T, error) {
	var zero T
	for range dumpTries {
		v, err := read()
		if err == nil {
			return v, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			return zero, translate(err)
		}
		if err := ctx.Err(); err != nil {
			return zero, err
		}
	}
	return zero, fmt.Errorf("kernel state changed during each of %d reads", dumpTries)
}

// errno gives the errors that have no meaning in package os one.
type errno struct {
	err error
	is  error
}

func (e errno) Error() string   { return e.err.Error() }
func (e errno) Unwrap() []error { return []error{e.err, e.is} }

// translate is the wall where errno ends: the result wraps os.ErrNotExist, os.ErrExist or os.ErrPermission where one
// fits. (ENOENT, EEXIST, EPERM and EACCES do so by themselves.)
func translate(err error) error {
	if err == nil {
		return nil
	}
	for _, n := range []unix.Errno{unix.ENODEV, unix.ESRCH, unix.EADDRNOTAVAIL, unix.ENXIO} {
		if errors.Is(err, n) {
			return errno{err, os.ErrNotExist}
		}
	}
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return errno{err, os.ErrNotExist}
	}
	return err
}
