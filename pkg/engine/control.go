package engine

import (
	"context"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
)

// socketPath is where wg(8) and wgctrl look for the control socket of a userspace device.
func socketPath(device string) string { return "/var/run/wireguard/" + device + ".sock" }

// listen opens the control socket, mode 0600. A socket that a dead engine left is replaced: nobody answers on it, and
// the device's lock says that nobody will. UAPIOpen sets the process's umask while it creates the socket.
func listen(name string) (net.Listener, error) {
	f, err := ipc.UAPIOpen(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := os.Chmod(socketPath(name), 0o600); err != nil {
		return nil, err
	}
	return ipc.UAPIListen(name, f)
}

// reopenEvery limits how often a control socket that keeps vanishing is opened again.
const reopenEvery = time.Second

// serve answers on l, the control socket of name, until ctx ends, and closes l. A socket file that somebody removed is
// made anew: an engine out of reach would keep its data path but never take another peer.
func serve(ctx context.Context, l net.Listener, name string, wg *device.Device, log *slog.Logger) {
	for l != nil {
		err := newSession(l, wg).run(ctx)
		l = reopen(ctx, name, err, log)
	}
}

// reopen tries until it has a listener again; nil means that ctx ended.
func reopen(ctx context.Context, name string, cause error, log *slog.Logger) net.Listener {
	for ctx.Err() == nil {
		log.Warn("control socket lost, opening it again", "socket", socketPath(name), "err", cause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reopenEvery):
		}
		l, err := listen(name)
		if err == nil {
			return l
		}
		cause = err
	}
	return nil
}

// session is the life of one listener and its connections.
type session struct {
	wg       *device.Device
	listener net.Listener
	shut     func() // close everything, once: the listener closes a bare descriptor

	mu       sync.Mutex
	conns    map[net.Conn]bool // nil once shut
	handlers sync.WaitGroup
}

func newSession(l net.Listener, wg *device.Device) *session {
	s := &session{wg: wg, listener: l, conns: map[net.Conn]bool{}}
	s.shut = sync.OnceFunc(func() {
		l.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			c.Close()
		}
		s.conns = nil
	})
	return s
}

// run hands connections to wireguard-go until the listener fails or ctx ends, and waits for all it started.
func (s *session) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.shut)
	defer stop()
	err := s.accept()
	s.shut()
	// The listener runs two goroutines, and each ends by delivering one error; the second is still to come.
	_ = s.accept()
	s.handlers.Wait()
	return err
}

func (s *session) accept() error {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return err
		}
		s.handle(c)
	}
}

func (s *session) handle(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		c.Close()
		return
	}
	s.conns[c] = true
	s.handlers.Go(func() {
		s.wg.IpcHandle(c)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	})
}
