package engine

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller waits for any of many files on behalf of one goroutine. The Go runtime waits for one file at a time; but an
// epoll file is itself one that can be waited for, so the goroutine parks in the runtime's poller on that, and no thread
// is held.
type poller struct {
	file   *os.File
	raw    syscall.RawConn
	events [64]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or os.NewFile takes it for a file that blocks
		unix.Close(fd)
		return nil, err
	}
	p := &poller{file: os.NewFile(uintptr(fd), "epoll")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, err
	}
	return p, nil
}

// add watches fd under an id.
func (p *poller) add(fd int, id int32) error {
	var ctl error
	err := p.raw.Control(func(ep uintptr) {
		ctl = unix.EpollCtl(int(ep), unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: id})
	})
	if err == nil {
		err = ctl
	}
	if err != nil {
		return fmt.Errorf("watch file: %w", err)
	}
	return nil
}

// wait appends the ids of files that can be read to ids, at least one; os.ErrClosed after close. Only one goroutine may
// wait.
func (p *poller) wait(ids []int32) ([]int32, error) {
	n := 0
	err := p.raw.Read(func(ep uintptr) bool {
		n = pollNow(int(ep), p.events[:])
		return n > 0
	})
	for _, e := range p.events[:n] {
		ids = append(ids, e.Fd)
	}
	return ids, err
}

// poll is wait that returns at once.
func (p *poller) poll(ids []int32) []int32 {
	n := 0
	_ = p.raw.Control(func(ep uintptr) { n = pollNow(int(ep), p.events[:]) })
	for _, e := range p.events[:n] {
		ids = append(ids, e.Fd)
	}
	return ids
}

func (p *poller) close() error { return p.file.Close() }
