package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Down ends every process of the lab, and with them its namespaces, mounts and links, and removes its directory. A lab
// that is gone already is success.
func (l *Lab) Down(ctx context.Context) error {
	if err := clearLab(ctx, l.dir, l.state.Hosts); err != nil {
		return fmt.Errorf("take down lab %s: %w", l.dir, err)
	}
	reaped := make(chan struct{})
	go func() {
		l.holders.Wait()
		close(reaped)
	}()
	select {
	case <-reaped:
	case <-time.After(reapGrace): // see there
	}
	return nil
}

// reapGrace is how long a holder that ended may take to vanish. It vanishes after every process in its namespace was
// reaped; one that was run from outside, by an Enter that was killed, is reaped by the machine's first process, and in
// a container that may be a program which never does. All that is left then are names of ended processes.
const reapGrace = 3 * time.Second

// Down takes down a lab by name or directory, as Open takes them, in whatever state it is: half-made, or with its
// directory lost. No such lab is fs.ErrNotExist.
func Down(ctx context.Context, s string) error {
	dir, err := dirOf(s)
	if err != nil {
		return err
	}
	st, err := loadState(dir)
	if err != nil {
		left, markErr := marked(dir, verbHost)
		if markErr != nil {
			return markErr
		}
		if len(left) == 0 && !exists(dir) {
			return fmt.Errorf("no lab at %s: %w", dir, fs.ErrNotExist)
		}
		if filepath.Dir(dir) != Root && exists(dir) {
			return fmt.Errorf("take down lab, %s may hold other things: %w", dir, err)
		}
	}
	if err := clearLab(ctx, dir, st.Hosts); err != nil {
		return fmt.Errorf("take down lab %s: %w", dir, err)
	}
	return nil
}

// Names lists the directories of the labs of this machine: those below Root, and those that processes still belong to.
func Names() ([]string, error) {
	entries, err := os.ReadDir(Root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		dirs = append(dirs, filepath.Join(Root, e.Name()))
	}
	pids, err := allPIDs()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		cmdline, err := os.ReadFile(procPath(pid, "cmdline"))
		if err != nil {
			continue // ended meanwhile
		}
		if verb, dir := parseMark(cmdline); verb == verbHost {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs), nil
}

// clearLab ends the recorded holders and all that bear the lab's mark, then removes the directory. It looks again until
// nothing is found, because an Up may still be at work.
func clearLab(ctx context.Context, dir string, hosts []Host) error {
	var recorded []process
	for _, h := range hosts {
		if h.PID > 0 {
			recorded = append(recorded, process{h.PID, h.Start})
		}
	}
	for {
		found, err := marked(dir, verbHost)
		if err != nil {
			return err
		}
		ended, err := end(ctx, append(recorded, found...))
		if err != nil {
			return err
		}
		if ended == 0 {
			break
		}
	}
	if err := endVisitors(ctx, dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove lab directory: %w", err)
	}
	if filepath.Dir(dir) == Root {
		_ = os.Remove(Root) // stays while there are other labs
	}
	return nil
}

// end kills processes and waits until they are gone; it returns how many there were.
func end(ctx context.Context, all []process) (int, error) {
	var errs []error
	var killed []process
	for _, p := range all {
		if !p.alive() || p.zombie() {
			continue
		}
		err := p.signal(unix.SIGKILL)
		if err == nil {
			killed = append(killed, p)
		} else if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	begin := time.Now()
	for _, p := range killed {
		err := poll(ctx, 2*time.Millisecond, func() (bool, error) {
			return p.over() || p.zombie() && time.Since(begin) > reapGrace, nil
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("wait for process %d: %w", p.PID, err))
		}
	}
	return len(killed), errors.Join(errs...)
}

// visitorGrace is what a `weft lab enter` gets to hand on the exit code of its command, which was killed.
const visitorGrace = 2 * time.Second

// endVisitors waits for those who were in the lab's hosts from outside.
func endVisitors(ctx context.Context, dir string) error {
	grace, cancel := context.WithTimeout(ctx, visitorGrace)
	defer cancel()
	var left []process
	err := poll(grace, 5*time.Millisecond, func() (bool, error) {
		var err error
		left, err = marked(dir, verbEnter)
		left = slices.DeleteFunc(left, func(p process) bool { return p.PID == os.Getpid() || p.zombie() })
		return len(left) == 0, err
	})
	if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	_, err = end(ctx, left)
	return err
}
