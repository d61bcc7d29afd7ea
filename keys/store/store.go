package store

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"weft/keys"
)

const (
	identityFile = "identity.key"
	// identityPrefix stands before the base64 seed, so that an identity is never taken for a WireGuard key.
	identityPrefix  = "ed25519 "
	wireguardPrefix = "wg-"
	kemPrefix       = "kem-"
	secretPrefix    = "secret-"
	pairsPrefix     = "pairs-"
	keySuffix       = ".key"
	// maxKeyFile in bytes is far above any key file: the pairs of 2,000 nodes are half of it.
	maxKeyFile = 1 << 20
)

// Store is a directory of private keys: identity.key and, for each WireGuard generation, wg-<generation>.key, kem-,
// secret- and pairs-<generation>.key. A key is made when it is first asked
// for and never overwritten; a file that is there but is not a proper key is an error, not a reason for a new one.
// Safe for concurrent use, also by several processes.
type Store struct {
	dir string
}

// Open prepares dir, creating it with mode 0700. It refuses, with an error that wraps os.ErrPermission, a directory
// in which others could replace files, and key files that others can read.
func Open(dir string) (*Store, error) {
	if err := prepareDir(dir); err != nil {
		return nil, fmt.Errorf("open key store: %w", err)
	}
	s := &Store{dir: dir}
	unlock, err := s.lock()
	if err != nil {
		return nil, fmt.Errorf("open key store: %w", err)
	}
	defer unlock()
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("open key store: %w", err)
	}
	return s, nil
}

// Identity returns the node's identity, making it when there is none.
func (s *Store) Identity() (keys.Identity, error) {
	return loadOrMake(s, identityFile, format[keys.Identity]{
		what:   "identity key",
		make:   keys.NewIdentity,
		encode: func(id keys.Identity) string { return identityPrefix + encode(id.Reveal()) },
		decode: func(text string) (keys.Identity, error) {
			b64, ok := strings.CutPrefix(text, identityPrefix)
			if !ok {
				return keys.Identity{}, errMalformed
			}
			b, err := decode(b64)
			if err != nil {
				return keys.Identity{}, err
			}
			return keys.IdentityFrom(b)
		},
	})
}

// WireGuard returns the private key of a generation (from 1), making it when there is none. The file holds what
// wg genkey prints.
func (s *Store) WireGuard(generation int) (keys.PrivateKey, error) {
	if generation < 1 {
		return keys.PrivateKey{}, fmt.Errorf("load WireGuard key: generation %d is below 1", generation)
	}
	return loadOrMake(s, generationFile(wireguardPrefix, generation), format[keys.PrivateKey]{
		what:   "WireGuard key",
		make:   keys.NewPrivateKey,
		encode: func(k keys.PrivateKey) string { return encode(k.Reveal()) },
		decode: keys.ParsePrivateKey,
	})
}

// Generations lists the generations that have a file, ascending.
func (s *Store) Generations() ([]int, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list WireGuard keys: %w", err)
	}
	var out []int
	for _, e := range entries {
		if n, ok := generationOf(e.Name()); ok {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, cmp.Compare[int]) // by number: the directory orders wg-10 before wg-9
	return slices.Compact(out), nil
}

// RemoveGeneration deletes all keys of a generation for good; one that is not there is no error. What was said under
// them cannot be read any more by whoever takes the disk later.
func (s *Store) RemoveGeneration(generation int) error {
	unlock, err := s.lock()
	if err != nil {
		return fmt.Errorf("remove keys of generation %d: %w", generation, err)
	}
	defer unlock()
	var errs []error
	for _, prefix := range generationPrefixes {
		err := os.Remove(filepath.Join(s.dir, generationFile(prefix, generation)))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove keys of generation %d: %w", generation, err))
		}
	}
	return errors.Join(append(errs, syncDir(s.dir))...)
}

// format is how one kind of key is made and written; the text has no line break, the file ends with one.
type format[K any] struct {
	what   string
	make   func() (K, error)
	encode func(K) string
	decode func(string) (K, error)
}

func loadOrMake[K any](s *Store, name string, f format[K]) (key K, err error) {
	path := filepath.Join(s.dir, name)
	unlock, err := s.lock()
	if err != nil {
		return key, fmt.Errorf("load %s: %w", f.what, err)
	}
	defer unlock()
	data, err := readPrivate(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if key, err = f.make(); err != nil {
			return key, err
		}
		return key, WriteFile(path, []byte(f.encode(key)+"\n"), 0o600)
	case err != nil:
		return key, fmt.Errorf("load %s: %w", f.what, err)
	}
	text, ok := strings.CutSuffix(string(data), "\n")
	if ok {
		key, err = f.decode(text)
	}
	if !ok || err != nil || f.encode(key) != text {
		var none K
		return none, fmt.Errorf("load %s: %s holds no proper key: restore it from a backup, or move it away to have a new key made", f.what, path)
	}
	return key, nil
}

// lock holds the directory against other users of it, in this process and others, until unlock.
func (s *Store) lock() (unlock func(), err error) {
	d, err := os.Open(s.dir)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("lock %s: %w", s.dir, err)
	}
	return func() { _ = d.Close() }, nil
}

// sweep checks the key files there are, so that a loose one is told at start and not at the next rotation, and
// removes temporary files of a write that was cut short.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, path := e.Name(), filepath.Join(s.dir, e.Name())
		if target, ok := temporaryOf(name); ok && isKeyFile(target) {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if isKeyFile(name) {
			if _, err := readPrivate(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func isKeyFile(name string) bool {
	_, ok := generationOf(name)
	return ok || name == identityFile
}

// generationPrefixes begin the names of a generation's files; what the others are for is worthless without the first.
var generationPrefixes = []string{wireguardPrefix, kemPrefix, secretPrefix, pairsPrefix}

func generationFile(prefix string, generation int) string {
	return prefix + strconv.Itoa(generation) + keySuffix
}

func generationOf(name string) (int, bool) {
	for _, prefix := range generationPrefixes {
		digits, ok1 := strings.CutPrefix(name, prefix)
		digits, ok2 := strings.CutSuffix(digits, keySuffix)
		n, err := strconv.Atoi(digits)
		if ok1 && ok2 && err == nil && n >= 1 && generationFile(prefix, n) == name {
			return n, true
		}
	}
	return 0, false
}
