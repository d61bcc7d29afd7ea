package apiserver

import (
	"context"
	"net"
	"net/http"

	"golang.org/x/sys/unix"

	"weft/pkg/api"
)

type peerKey struct{}

// withPeer asks the kernel once per connection who connected. A connection whose peer cannot be told has no Peer in
// its context and is refused.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || credErr != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, Peer{UID: cred.Uid, PID: int(cred.Pid)})
}

// admit decides whether the request's peer may make it: root and the agent's own user everything, others only reads.
func (s *Server) admit(r *http.Request) (Peer, error) {
	p, ok := r.Context().Value(peerKey{}).(Peer)
	if !ok {
		return Peer{}, api.Errorf(api.Forbidden, "the kernel does not say who connected")
	}
	if p.UID == 0 || p.UID == s.owner || r.Method == http.MethodGet {
		return p, nil
	}
	return Peer{}, api.Errorf(api.Forbidden, "user %d may read but not change anything: run weft as root", p.UID)
}
