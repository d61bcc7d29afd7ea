package wireguard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"weft/pkg/kstate"
)

// Names of the backends, as kstate.Link.Backend and the node record have them.
const (
	KernelName = "kernel"
	EngineName = "engine"
	// EngineTUNName is the engine without its own data path: wireguard-go on a TUN, under VXLAN devices of the kernel. It
	// is what the engine is measured and tested against, and a way back should the data path fail somebody.
	EngineTUNName = "engine-tun"
)

// Backend makes and removes WireGuard devices. The device appears in the transit namespace, down, without key or peers;
// its UDP sockets are in the namespace of the calling process. Implementations are safe for concurrent use.
type Backend interface {
	// Name is KernelName, EngineName or EngineTUNName.
	Name() string
	// Create makes the device with an MTU in bytes. A device of this backend that is there already is adopted with its
	// keys and peers; another kind of link under the name is an os.ErrExist. The transit namespace must exist.
	Create(ctx context.Context, name string, mtu int) error
	// Delete removes the device; an absent one is success.
	Delete(ctx context.Context, name string) error
}

// Probe chooses a backend: mode is "kernel", "engine", "engine-tun" or "auto", which prefers the kernel. It makes a WireGuard link in
// a scratch namespace to see whether the kernel can, and leaves nothing behind. When the kernel cannot and mode insists,
// or there is no TUN device for the engine either, the error is an errors.ErrUnsupported and says what to do.
func Probe(ctx context.Context, mode string, cfg EngineConfig) (Backend, error) {
	switch mode {
	case "kernel":
		if err := probeKernel(ctx); err != nil {
			return nil, fmt.Errorf("probe kernel WireGuard: %w", err)
		}
		return Kernel(), nil
	case "engine", EngineTUNName:
		if err := probeTUN(tunPath); err != nil {
			return nil, fmt.Errorf("probe engine: %w", err)
		}
		cfg.Plain = mode == EngineTUNName
		return Engine(cfg), nil
	case "auto":
		err := probeKernel(ctx)
		if err == nil {
			return Kernel(), nil
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			return nil, fmt.Errorf("probe kernel WireGuard: %w", err)
		}
		if tunErr := probeTUN(tunPath); tunErr != nil {
			return nil, fmt.Errorf("probe WireGuard backends: kernel: %w; engine: %w", err, tunErr)
		}
		return Engine(cfg), nil
	}
	return nil, fmt.Errorf("probe WireGuard: unknown backend %q, want auto, kernel or engine", mode)
}

const tunPath = "/dev/net/tun"

// probeTUN opens the TUN device: the file is often there while the module behind it is not.
func probeTUN(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return unix.Close(fd)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("no TUN device (load the module tun, or let the container have %s): %w: %w",
			path, errors.ErrUnsupported, err)
	}
	return &os.PathError{Op: "open", Path: path, Err: err}
}

// checkName keeps this package to its own devices: names become paths and command lines.
func checkName(name string) error {
	if !strings.HasPrefix(name, kstate.WGPrefix) || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/ ") {
		return fmt.Errorf("device name %q is not %s and a short suffix", name, kstate.WGPrefix)
	}
	return nil
}
