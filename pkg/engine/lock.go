package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockDir holds the locks that keep a device to one engine.
const lockDir = "/run/weft"

// lockDevice takes the device's lock; closing the file, or the end of the process however it comes, gives it back. The
// file stays: to remove it would let two processes lock two files of one name.
func lockDevice(dir, device string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("lock device: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "engine-"+device+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock device: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("another engine runs this device (it holds %s): %w", f.Name(), os.ErrExist)
	}
	return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
}
