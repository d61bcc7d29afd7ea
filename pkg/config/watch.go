package config

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// quiet is how long no event may come before the files are read: editors and package managers write in several steps.
	quiet = 100 * time.Millisecond
	// patience bounds the wait when events do not end, as beside a log file.
	patience = time.Second
)

// Watch loads again when the content or the set of the files changed, also by a rename or a moved symlink somewhere in their paths, and
// calls onChange with Load's result, in the caller's goroutine. loaded is what the caller runs with: a change since then is reported
// at once. resolv.conf counts as a file while dns.upstreams comes from it. It returns nil when ctx ends, and an error when
// the files cannot be watched.
func Watch(ctx context.Context, loaded *Loaded, opts Options, onChange func(*Loaded, error)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch configuration: %w", err)
	}
	defer func() { _ = watcher.Close() }()
	if err := rewatch(watcher, opts); err != nil {
		return err
	}
	last, resolver := loaded.fingerprint, loaded.usesResolver()
	reload := func() {
		// Taken before Load: what changes in between is seen by the next event.
		now := opts.fingerprint()
		if ctx.Err() != nil || now.files == last.files && (now.resolv == last.resolv || !resolver) {
			return
		}
		last = now
		next, err := Load(opts)
		if err == nil {
			resolver = next.usesResolver()
		}
		onChange(next, err)
	}
	reload()
	for {
		if err := settle(ctx, watcher); err != nil || ctx.Err() != nil {
			return err
		}
		if err := rewatch(watcher, opts); err != nil {
			return err
		}
		reload()
	}
}

func (l *Loaded) usesResolver() bool { return l.Sources["dns.upstreams"].Kind == FromDefault }

// settle waits for an event and then for silence. Events the kernel had no room for count as one.
func settle(ctx context.Context, watcher *fsnotify.Watcher) error {
	var silence, limit <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-silence:
			return nil
		case <-limit:
			return nil
		case _, ok := <-watcher.Events:
			if !ok {
				return fmt.Errorf("watch configuration: %w", fsnotify.ErrClosed)
			}
		case _, ok := <-watcher.Errors:
			if !ok {
				return fmt.Errorf("watch configuration: %w", fsnotify.ErrClosed)
			}
		}
		silence = time.After(quiet)
		if limit == nil {
			limit = time.After(patience)
		}
	}
}

// rewatch makes the watched directories those that matter now. It adds all of them anew, because a directory that was moved away keeps
// its watch, under a name that is another directory's by now.
func rewatch(watcher *fsnotify.Watcher, opts Options) error {
	for _, dir := range watcher.WatchList() {
		_ = watcher.Remove(dir) // it may be gone
	}
	var failed error
	added := 0
	for _, dir := range opts.watched() {
		if err := watcher.Add(dir); err == nil {
			added++
		} else if !os.IsNotExist(err) && !os.IsPermission(err) {
			failed = fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	if added == 0 && failed != nil {
		return failed
	}
	return nil
}

// watched lists the directories in which a change can change the configuration.
func (o Options) watched() []string {
	path, _ := o.path()
	roots := []string{path, o.resolvConf()}
	if path == "" {
		roots[0] = filepath.Join(o.defaultDir(), "weft.yaml")
		roots = append(roots, filepath.Join(o.defaultDir(), "conf.d"))
	}
	files, _, _ := o.discover()
	dirs := map[string]bool{}
	for _, root := range append(roots, files...) {
		if abs, err := filepath.Abs(root); err == nil {
			trail(abs, dirs, 0)
		}
	}
	return slices.Sorted(maps.Keys(dirs))
}

// maxSymlinks is MAXSYMLINKS of the kernel (include/linux/namei.h).
const maxSymlinks = 40

// trail adds the directories whose entries decide what path leads to: that of every symlink on the way, the last one, and the nearest
// one that exists when the path ends early.
func trail(path string, dirs map[string]bool, hops int) {
	at := "/"
	parts := strings.Split(strings.Trim(filepath.Clean(path), "/"), "/")
	for i, part := range parts {
		next := filepath.Join(at, part)
		info, err := os.Lstat(next)
		if err != nil {
			dirs[at] = true
			return
		}
		if info.Mode()&os.ModeSymlink != 0 {
			dirs[at] = true
			target, err := os.Readlink(next)
			if err != nil || hops >= maxSymlinks {
				return
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(at, target)
			}
			trail(filepath.Join(append([]string{target}, parts[i+1:]...)...), dirs, hops+1)
			return
		}
		if i == len(parts)-1 {
			dirs[at] = true
			if info.IsDir() {
				dirs[next] = true
			}
		}
		at = next
	}
}
