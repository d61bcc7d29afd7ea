package wireguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// EngineConfig says how to start engines.
type EngineConfig struct {
	// Executable is the weft binary; "" is the running one, or the one that has replaced it since.
	Executable string
	// LogFile takes what engines print, created with mode 0600; "" drops it.
	LogFile string
	// Plain makes the engines of EngineTUNName.
	Plain bool
	// Log is told about engines that are started and adopted; nil for silence.
	Log *slog.Logger
}

// Engine is the backend that runs `weft engine`, one process per device. The process is in a session of its own, holds
// nothing of the agent's and survives it; only a supervisor that ends whole control groups takes both (for systemd:
// KillMode=process). The next agent finds it by its control socket.
func Engine(cfg EngineConfig) Backend {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &engineBackend{cfg: cfg}
}

type engineBackend struct {
	cfg      EngineConfig
	children children
}

const (
	startTimeout = 5 * time.Second // an engine answers within 100 ms even on a busy machine
	endTimeout   = 5 * time.Second
	pollEvery    = 10 * time.Millisecond
)

func (e *engineBackend) Name() string {
	if e.cfg.Plain {
		return EngineTUNName
	}
	return EngineName
}

// Create implements Backend. It waits up to 5 s for the engine to answer; when it does not start, the error carries the
// last line it logged.
func (e *engineBackend) Create(ctx context.Context, name string, mtu int) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("create WireGuard device: %w", err)
	}
	e.children.reap()
	adopted, err := e.adopt(name, mtu)
	if err == nil && !adopted {
		err = e.start(ctx, name, mtu)
	}
	if err != nil {
		return fmt.Errorf("create WireGuard device %s: %w", name, err)
	}
	return nil
}

// adopt reports whether the device is there and answers, and gives it the MTU.
func (e *engineBackend) adopt(name string, mtu int) (bool, error) {
	l, err := findLink(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // the namespace missing shows when the engine does not start
	}
	if err != nil {
		return false, err
	}
	if l.Type() != tunType {
		return false, fmt.Errorf("a %s link has the name: %w", l.Type(), os.ErrExist)
	}
	// The link lives while an engine holds it: if none answers, starting another one would not help.
	if _, err := engineControl(name).get(); err != nil {
		return false, err
	}
	if l.Attrs().MTU != mtu {
		if err := inTransit(func(h *netlink.Handle) error { return h.LinkSetMTU(l, mtu) }); err != nil {
			return false, fmt.Errorf("set mtu: %w", err)
		}
	}
	e.cfg.Log.Info("engine adopted", "device", name)
	return true, nil
}

func (e *engineBackend) start(ctx context.Context, name string, mtu int) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	logFrom := logSize(e.cfg.LogFile)
	pid, err := spawn(e.cfg, name, mtu)
	if err != nil {
		return fmt.Errorf("start engine: %w", err)
	}
	e.children.add(pid)
	err = poll(ctx, func() (bool, error) {
		if ended, how := e.children.ended(pid); ended {
			return false, fmt.Errorf("engine ended (%s)", how)
		}
		if _, err := findLink(name); err != nil {
			return false, ignoreAbsent(err)
		}
		_, err := engineControl(name).get()
		return err == nil, ignoreAbsent(err)
	})
	if err != nil {
		_ = e.children.kill(pid, unix.SIGTERM) // nothing half-made stays behind; it may have ended
		return fmt.Errorf("start engine: %w%s", err, lastLine(e.cfg.LogFile, logFrom))
	}
	e.cfg.Log.Info("engine started", "device", name, "pid", pid)
	return nil
}

// Delete implements Backend. The engine ends when its link does; Delete waits for that up to 5 s.
func (e *engineBackend) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("delete WireGuard device: %w", err)
	}
	if err := deleteLink(name); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		_, err := os.Stat(socketPath(name))
		if errors.Is(err, os.ErrNotExist) {
			return true, nil
		}
		if _, err := (uapi{socketPath(name), 100 * time.Millisecond}).get(); errors.Is(err, os.ErrNotExist) {
			err := os.Remove(socketPath(name)) // nobody listens: an engine that was killed left it
			return true, ignoreAbsent(err)
		}
		return false, nil
	})
	e.children.reap()
	if err != nil {
		return fmt.Errorf("delete WireGuard device %s: link is deleted, but its engine does not end: %w", name, err)
	}
	return nil
}

// poll calls done until it reports true or an error, or ctx ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func ignoreAbsent(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
