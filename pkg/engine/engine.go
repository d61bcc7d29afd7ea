package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// Where things are, and why
//
//	host namespace   UDP sockets <- wireguard-go -> control sockets /var/run/wireguard/<device>.sock (UAPI)
//	                                  |     |                       /run/weft/engine-<device>.sock (networks)
//	weft-n-<id>      TAP vxlan0 --VXLAN     |
//	weft-t           TUN <device> ----------+
//
// The process never enters these namespaces as a whole: one thread goes there, opens the device and comes back, and the
// open file does the rest. So a cleartext packet in weft-t has one way out, and the sockets are where the underlay is.
// Frames of a network never see weft-t at all: they are encapsulated, cut and joined here, see reader.go, writer.go and
// docs/engine.md.
//
// Life: the TUN exists while the process holds it, and the process runs while the TUN exists. Whoever deletes the link
// thereby ends the engine, and when the engine dies the link goes too: no state in which one lies about the other.
// Memory: a quiet engine is some 15 MB resident; under load the packet buffers of wireguard-go (64 KiB each, batches of
// 128) dominate, and they come from pools that the collector empties again. GOGC and GOMEMLIMIT are left as they are:
// a limit below what a batch needs makes the collector run without end, and one above it changes nothing.

// Config says which device to run.
type Config struct {
	// Device is the name of the TUN and of the control socket, 1 to 15 characters without a slash.
	Device string
	// NetNS is the named namespace the TUN is born in; "" is the process's own.
	NetNS string
	// MTU of the TUN in bytes, 576 to 65535.
	MTU int
	// Plain is wireguard-go on its own TUN and nothing else: VXLAN is the kernel's. For comparison.
	Plain bool
	// Log takes the few lines an engine has to say; never nil. No key is ever written to it.
	Log *slog.Logger
}

func (c Config) check() error {
	switch {
	case c.Log == nil:
		return errors.New("no logger")
	case c.Device == "" || len(c.Device) >= unix.IFNAMSIZ || strings.ContainsAny(c.Device, "/ ") || c.Device[0] == '.':
		return fmt.Errorf("bad device name %q", c.Device)
	case c.MTU < minMTU || c.MTU > maxMTU:
		return fmt.Errorf("mtu %d is outside %d-%d", c.MTU, minMTU, maxMTU)
	}
	return nil
}

const (
	minMTU = 576   // what every IPv4 host must take in one piece (RFC 791 section 3.1)
	maxMTU = 65535 // largest IP packet
)

// Run serves one WireGuard device, and the networks that it is told of, until ctx ends, the process gets SIGTERM or SIGINT, or somebody deletes the link; all
// three are success, and none leaves a link or a socket behind. From then on the process ignores SIGHUP and SIGPIPE:
// neither the end of a terminal nor of a log reader may end a data path. A second engine for the same device is refused
// with an os.ErrExist; a missing namespace is an os.ErrNotExist, missing rights are an os.ErrPermission.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.check(); err != nil {
		return fmt.Errorf("run engine: %w", err)
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	if err := run(ctx, cfg); err != nil {
		return fmt.Errorf("run engine %s: %w", cfg.Device, err)
	}
	return nil
}

func run(ctx context.Context, cfg Config) error {
	lock, err := lockDevice(lockDir, cfg.Device)
	if err != nil {
		return err
	}
	defer lock.Close()
	if cfg.Plain {
		tunDevice, err := openTUN(cfg.NetNS, cfg.Device, cfg.MTU)
		if err != nil {
			return fmt.Errorf("open tun: %w", err)
		}
		return runDevice(ctx, cfg, tunDevice, conn.NewDefaultBind())
	}
	taps, err := openDevice(cfg.NetNS, cfg.Device, cfg.MTU)
	if err != nil {
		return fmt.Errorf("open tun: %w", err)
	}
	defer taps.Close()
	orders, err := listenControl(cfg.Device)
	if err != nil {
		return fmt.Errorf("open control socket: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	tasks.Go(func() { taps.plane.sweep(ctx) })
	tasks.Go(func() { serveControl(ctx, orders, taps.plane, cfg) })
	defer tasks.Wait()
	defer cancel()
	return runDevice(ctx, cfg, taps, newBind())
}

// link is a device that knows whether its link is still there.
type link interface {
	tun.Device
	detached() bool
}

// runDevice serves WireGuard until the end.
func runDevice(ctx context.Context, cfg Config, tunDevice link, bind conn.Bind) error {
	wg := device.NewDevice(tunDevice, bind, adaptLogger(cfg.Log))
	defer wg.Close()
	// Up does not wait for the link: a handshake needs no link, so peers can begin theirs while it is still being
	// set up. Without a key the device answers nobody.
	if err := wg.Up(); err != nil {
		return fmt.Errorf("open udp sockets: %w", err)
	}
	control, err := listen(cfg.Device)
	if err != nil {
		return fmt.Errorf("open control socket: %w", err)
	}
	cfg.Log.Info("engine started", "device", cfg.Device, "netns", cfg.NetNS, "mtu", cfg.MTU, "plain", cfg.Plain)
	ctx, stop := untilGone(ctx, wg, tunDevice)
	defer stop()
	serve(ctx, control, cfg.Device, wg, cfg.Log)
	cfg.Log.Debug("engine ended", "device", cfg.Device)
	return nil
}

// untilGone returns a context that ends with ctx, or when the device has closed itself or lost its link; stop ends it and
// waits for the watchers.
func untilGone(ctx context.Context, wg *device.Device, link link) (gone context.Context, stop func()) {
	gone, cancel := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	watchers.Go(func() {
		select {
		case <-wg.Wait():
			cancel()
		case <-gone.Done():
		}
	})
	watchers.Go(func() {
		if awaitDetached(gone, link) {
			cancel()
		}
	})
	return gone, func() {
		cancel()
		watchers.Wait()
	}
}
