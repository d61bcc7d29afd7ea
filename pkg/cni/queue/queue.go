package queue

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"weft/pkg/overlay"
)

// Queue is a directory of files, one per endpoint to detach. Agent and plugin take turns by a lock on the directory,
// so that an endpoint that is made anew under an id that is still in the queue is not the one that is detached:
//
//	plugin, DEL     agent away: Add
//	plugin, ADD     Has? then Drain(detach), and only then attach
//	agent           Drain(detach) when it starts and now and then
type Queue struct{ dir string }

// Of is the queue of the agent on a socket: /run/weft/cni-queue for /run/weft/weft.sock. Like the socket it does not
// outlive a reboot, and neither do endpoints.
func Of(socket string) Queue { return Queue{filepath.Join(filepath.Dir(socket), "cni-queue")} }

// Dir is where the files lie.
func (q Queue) Dir() string { return q.dir }

// entry is the content of a file; its name is only a hash.
type entry struct {
	ID     overlay.EndpointID `json:"id"`
	Queued time.Time          `json:"queued"`
}

func (q Queue) path(id overlay.EndpointID) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(q.dir, hex.EncodeToString(sum[:16])+".json")
}

// Add puts id into the queue; again is fine. The file is whole or not there, whatever happens to the writer.
func (q Queue) Add(id overlay.EndpointID) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("queue the detach of %s: %w", id, err)
		}
	}()
	if err := os.MkdirAll(q.dir, 0o700); err != nil {
		return err
	}
	if err := q.trusted(); err != nil {
		return err
	}
	data, err := json.Marshal(entry{id, time.Now().UTC()})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(q.dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), q.path(id))
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// Has reports whether id waits in the queue.
func (q Queue) Has(id overlay.EndpointID) bool {
	_, err := os.Lstat(q.path(id))
	return err == nil
}

// Drain gives every id that waits to detach, oldest first, and forgets those for which it returns nil or
// os.ErrNotExist. It returns how many it forgot, and the errors of the others joined. An absent queue is an empty one.
func (q Queue) Drain(detach func(overlay.EndpointID) error) (done int, err error) {
	unlock, err := q.lock()
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer unlock()
	all, err := q.list()
	errs := []error{err}
	for _, e := range all {
		if err := detach(e.ID); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("detach %s: %w", e.ID, err))
			continue
		}
		if err := os.Remove(q.path(e.ID)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		done++
	}
	return done, errors.Join(errs...)
}

func (q Queue) lock() (unlock func(), err error) {
	d, err := os.Open(q.dir)
	if err != nil {
		return nil, fmt.Errorf("open queue of detaches: %w", err)
	}
	if err := q.trusted(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	for {
		if err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock queue of detaches: %w", err), d.Close())
	}
	return func() { d.Close() }, nil // which unlocks
}

// trusted refuses a directory that others can write: whoever can, can detach.
func (q Queue) trusted() error {
	fi, err := os.Lstat(q.dir)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !fi.IsDir() || !ok || int(st.Uid) != os.Geteuid() || fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s must be a directory of the agent's user that nobody else can write: remove it", q.dir)
	}
	return nil
}

// list reads the queue, oldest first. What is no entry is removed: nothing else may lie there, and it would stay for ever.
func (q Queue) list() (out []entry, err error) {
	files, err := os.ReadDir(q.dir)
	if err != nil {
		return nil, fmt.Errorf("read queue of detaches: %w", err)
	}
	var errs []error
	for _, f := range files {
		path := filepath.Join(q.dir, f.Name())
		if strings.HasPrefix(f.Name(), ".new-") {
			if fi, err := f.Info(); err == nil && time.Since(fi.ModTime()) > time.Minute {
				errs = append(errs, os.Remove(path)) // its writer was killed
			}
			continue
		}
		var e entry
		data, err := os.ReadFile(path)
		if err == nil {
			e, err = parse(data)
		}
		if err == nil && q.path(e.ID) != path {
			err = errors.New("its name is another endpoint's")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("queued detach %s is dropped: %w", path, err), os.Remove(path))
			continue
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b entry) int { return a.Queued.Compare(b.Queued) })
	return out, errors.Join(errs...)
}

func parse(data []byte) (e entry, err error) {
	if err = json.Unmarshal(data, &e); err == nil {
		err = e.ID.Validate()
	}
	return e, err
}
