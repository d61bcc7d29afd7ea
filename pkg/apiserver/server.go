package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Limits of one request. Clients are local, so a slow one is a stuck one.
const (
	maxBody        = 1 << 20          // bytes; the largest honest request is a network with many labels
	maxHeader      = 16 << 10         // bytes
	readTimeout    = 10 * time.Second // header and body
	requestTimeout = 2 * time.Minute  // the backend's work: an attach waits 3 s for spares, a leave takes a data path down
	idleTimeout    = 2 * time.Minute
	stopGrace      = 5 * time.Second // for requests under way when the server stops
)

// Config is what New needs; every field but Socket's directory must be there.
type Config struct {
	// Socket is the path to listen on, api.DefaultSocket by custom. A missing directory is made, mode 0755.
	Socket string
	// Group names the group whose members may connect, and read; one that does not exist is none.
	Group string
	Log   *slog.Logger

	Networks  Networks
	Endpoints Endpoints
	Checks    Checks
	Processes Processes
	Names     Names
	Nodes     Nodes
	System    System
	Keys      Keys
	Trust     Trust
}

// Server serves the API on one socket. Create it with New.
type Server struct {
	cfg   Config
	owner uint32 // may write besides root: the uid the agent runs as
	ready chan struct{}
	once  sync.Once
}

// New checks cfg; it touches nothing yet.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Socket == "":
		return nil, errors.New("make api server: no socket path")
	case cfg.Log == nil:
		return nil, errors.New("make api server: no logger")
	case cfg.Networks == nil, cfg.Endpoints == nil, cfg.Checks == nil, cfg.Processes == nil, cfg.Names == nil, cfg.Nodes == nil, cfg.System == nil, cfg.Keys == nil, cfg.Trust == nil:
		return nil, errors.New("make api server: a backend is missing")
	}
	return &Server{cfg: cfg, owner: uint32(os.Geteuid()), ready: make(chan struct{})}, nil
}

// Ready is closed once clients can connect.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run listens and serves until ctx ends, then lets requests under way finish for 5 s, and returns nil. It fails when
// another agent answers on the socket, or when the socket cannot be made. Call it once.
func (s *Server) Run(ctx context.Context) error {
	l, err := listen(ctx, s.cfg.Socket, s.cfg.Group)
	if err != nil {
		return err
	}
	// Requests outlive ctx by the grace, so they get a context of their own.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      requestTimeout + readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	s.once.Do(func() { close(s.ready) })

	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", s.cfg.Socket, err)
	case <-ctx.Done():
	}
	grace, stop := context.WithTimeout(base, stopGrace)
	defer stop()
	if err := srv.Shutdown(grace); err != nil {
		s.cfg.Log.Warn("cut off requests that did not end in time", "err", err)
		cancel()
		srv.Close() // its error repeats the listener's, closed above
	}
	<-served
	return nil
}
