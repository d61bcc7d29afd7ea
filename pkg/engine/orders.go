package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"weft/pkg/engine/control"
)

// maxRequest bounds a request in bytes.
const maxRequest = 1 << 20

// listenControl opens the socket for package control. A socket that a dead engine left is replaced: the device's lock
// says that nobody answers on it.
func listenControl(device string) (*net.UnixListener, error) {
	path := control.SocketPath(device)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// serveControl answers until ctx ends, and closes the socket and its connections.
func serveControl(ctx context.Context, l *net.UnixListener, p *plane, cfg Config) {
	s := &orders{plane: p, ctx: ctx}
	for l != nil {
		stop := context.AfterFunc(ctx, func() { l.Close() })
		err := s.accept(l)
		stop()
		l.Close()
		l = nil
		for ctx.Err() == nil && l == nil {
			cfg.Log.Warn("control socket lost, opening it again", "socket", control.SocketPath(cfg.Device), "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(reopenEvery):
				l, err = listenControl(cfg.Device)
			}
		}
	}
	s.tasks.Wait()
}

type orders struct {
	plane *plane
	ctx   context.Context
	tasks sync.WaitGroup
}

func (s *orders) accept(l *net.UnixListener) error {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return err
		}
		s.tasks.Go(func() {
			defer c.Close()
			stop := context.AfterFunc(s.ctx, func() { c.Close() })
			defer stop()
			s.serve(c)
		})
	}
}

// serve answers one request.
func (s *orders) serve(c *net.UnixConn) {
	_ = c.SetDeadline(time.Now().Add(90 * time.Second)) // more than the longest profile
	resp := control.Response{}
	var req control.Request
	err := mayOrder(c)
	if err == nil {
		err = json.NewDecoder(io.LimitReader(c, maxRequest)).Decode(&req)
	}
	switch {
	case err != nil:
		resp.Code, resp.Error = control.CodeInvalid, err.Error()
	case req.Version != control.Version:
		resp.Code, resp.Error = control.CodeVersion, fmt.Sprintf("version %d is not spoken here", req.Version)
	default:
		if err := s.do(req, &resp); err != nil {
			resp.Code, resp.Error = codeOf(err), err.Error()
		}
	}
	resp.Version = control.Version
	if json.NewEncoder(c).Encode(resp) == nil && req.Op == control.OpWatch && resp.Code == "" {
		_ = c.SetDeadline(time.Time{})
		_, _ = c.Read(make([]byte, 1)) // until either side ends
	}
}

// mayOrder lets only root, and the user that runs the engine, give orders.
func mayOrder(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var asked error
	if err := raw.Control(func(fd uintptr) { cred, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if asked != nil {
		return asked
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d may not: %w", cred.Uid, os.ErrPermission)
	}
	return nil
}

func (s *orders) do(req control.Request, resp *control.Response) error {
	switch req.Op {
	case control.OpState:
		resp.Networks, resp.Traffic = s.plane.report(), &control.Traffic{Drops: s.plane.drops.report()}
		return nil
	case control.OpWatch:
		return nil
	case control.OpProfile:
		return s.profile(req.Profile, resp)
	}
	if req.TAP == nil {
		return fmt.Errorf("%w: no tap", errInvalid)
	}
	switch req.Op {
	case control.OpAddTAP:
		return s.plane.add(*req.TAP)
	case control.OpRemoveTAP:
		s.plane.removeIf(func(n *network) bool { return n.NetNS == req.TAP.NetNS && n.Name == req.TAP.Name })
		return nil
	case control.OpSetFDB:
		n, err := s.plane.find(req.TAP.NetNS, req.TAP.Name)
		if err != nil {
			return err
		}
		return n.set(req.Entries)
	case control.OpRemoveFDB:
		n, err := s.plane.find(req.TAP.NetNS, req.TAP.Name)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return n.remove(req.Entries)
	}
	return fmt.Errorf("%w: operation %q", errInvalid, req.Op)
}

func (s *orders) profile(p *control.Profile, resp *control.Response) error {
	var out bytes.Buffer
	switch {
	case p == nil:
		return fmt.Errorf("%w: no profile", errInvalid)
	case p.Name == "cpu":
		if p.Seconds < 1 || p.Seconds > 60 {
			return fmt.Errorf("%w: a profile of %d s", errInvalid, p.Seconds)
		}
		if err := pprof.StartCPUProfile(&out); err != nil {
			return err
		}
		select {
		case <-s.ctx.Done():
		case <-time.After(time.Duration(p.Seconds) * time.Second):
		}
		pprof.StopCPUProfile()
	case pprof.Lookup(p.Name) == nil:
		return fmt.Errorf("%w: profile %q", errInvalid, p.Name)
	default:
		if err := pprof.Lookup(p.Name).WriteTo(&out, 0); err != nil {
			return err
		}
	}
	resp.Profile = out.Bytes()
	return nil
}
