package store

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"weft/keys"
)

var errMalformed = errors.New("not a key")

// WriteFile replaces the file at path with data so that a reader, also after a crash or a power cut, finds the old
// content or the new, never a part, and nobody but the owner can open it before it has its final mode perm. A
// symbolic link at path is replaced, not followed. The directory must exist.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	if err := writeFile(path, data, perm); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeFile(path string, data []byte, perm os.FileMode) (err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, temporaryPattern(base)) // made 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Chmod(perm); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename or removal in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func temporaryPattern(base string) string { return "." + base + ".tmp-*" }

// temporaryOf reports for which file a temporary one was made.
func temporaryOf(name string) (base string, ok bool) {
	hidden, ok1 := strings.CutPrefix(name, ".")
	base, _, ok2 := strings.Cut(hidden, ".tmp-")
	return base, ok1 && ok2
}

// readPrivate reads a small file that only its owner may touch. Checks are on the open file, not on the name, so that
// nothing can be swapped in between.
func readPrivate(path string) ([]byte, error) {
	// O_NONBLOCK: opening a FIFO that somebody put there must not hang.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, refuse("%s is a symbolic link: put the file itself there", path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, refuse("%s is not a regular file", path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, refuse("others can read or write %s (mode %04o): chmod 600 %s", path, perm, path)
	}
	if uid := owner(info); uid != os.Geteuid() {
		return nil, refuse("%s belongs to user %d, not to user %d who runs this: chown %d %s", path, uid, os.Geteuid(), os.Geteuid(), path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, err
	}
	return data, nil
}

// prepareDir makes dir, or checks that nobody else can put files into the one there is. Others may list it.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return refuse("others can write to %s (mode %04o): chmod 700 %s", dir, perm, dir)
	}
	if uid := owner(info); uid != os.Geteuid() && uid != 0 {
		return refuse("%s belongs to user %d, not to user %d who runs this: chown %d %s", dir, uid, os.Geteuid(), os.Geteuid(), dir)
	}
	return nil
}

func owner(info os.FileInfo) int {
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

// refusal is an os.ErrPermission whose text says what is wrong and what to do, and nothing else.
type refusal string

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

func (r refusal) Error() string { return string(r) }

func (r refusal) Is(target error) bool { return target == os.ErrPermission }

func encode(b [keys.Size]byte) string { return base64.StdEncoding.EncodeToString(b[:]) }

func decode(s string) (b [keys.Size]byte, err error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != keys.Size {
		return b, errMalformed
	}
	return [keys.Size]byte(raw), nil
}

// ReadSecret reads a small file that only its owner may touch, as a cluster secret, a token or a signer's key: one that
// others can read is refused with an os.ErrPermission that says how to mend it.
func ReadSecret(path string) ([]byte, error) {
	data, err := readPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	return data, nil
}
