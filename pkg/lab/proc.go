package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process names a process for good: a PID may be used again, a PID with its start time is not.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot
}

// findProcess reads when pid started. A process that is gone is fs.ErrNotExist.
func findProcess(pid int) (process, error) {
	stat, err := os.ReadFile(procPath(pid, "stat"))
	if errors.Is(err, unix.ESRCH) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return process{}, fmt.Errorf("look up process %d: %w", pid, err)
	}
	_, start, err := parseStat(stat)
	if err != nil {
		return process{}, fmt.Errorf("look up process %d: %w", pid, err)
	}
	return process{PID: pid, Start: start}, nil
}

// parseStat takes state and start time out of /proc/PID/stat: fields 3 and 22 of proc_pid_stat(5). The command name,
// field 2, may hold spaces and parentheses, so counting begins behind the last one.
func parseStat(stat []byte) (state string, start uint64, err error) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return "", 0, errors.New("parse stat: no command name")
	}
	fields := strings.Fields(string(stat[i+1:]))
	if len(fields) < 20 {
		return "", 0, fmt.Errorf("parse stat: %d fields after the command name, want 20", len(fields))
	}
	if start, err = strconv.ParseUint(fields[19], 10, 64); err != nil {
		return "", 0, fmt.Errorf("parse stat: %w", err)
	}
	return fields[0], start, nil
}

// zombie says whether the process's first thread has ended; others of its threads may be about to.
func (p process) zombie() bool {
	stat, err := os.ReadFile(procPath(p.PID, "stat"))
	if err != nil {
		return false
	}
	state, start, err := parseStat(stat)
	return err == nil && start == p.Start && (state == "Z" || state == "X")
}

// parseInnerPID takes the PID in the innermost namespace out of /proc/PID/status, 0 if there is none.
func parseInnerPID(status []byte) int {
	for line := range strings.Lines(string(status)) {
		rest, ok := strings.CutPrefix(line, "NSpid:")
		if !ok {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			return 0
		}
		pid, err := strconv.Atoi(fields[len(fields)-1])
		if err != nil {
			return 0
		}
		return pid
	}
	return 0
}

// alive says whether the process still runs; a zombie counts until it is reaped.
func (p process) alive() bool {
	now, err := findProcess(p.PID)
	return p.PID > 0 && err == nil && now == p
}

// signal sends sig to the process, never to another that took its PID; gone is fs.ErrNotExist.
func (p process) signal(sig unix.Signal) error {
	fd, err := p.open()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// open gives a pidfd. It is opened first and checked then, so the PID cannot change hands in between.
func (p process) open() (int, error) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return -1, fmt.Errorf("open process %d: %w", p.PID, err)
	}
	if !p.alive() {
		unix.Close(fd)
		return -1, fmt.Errorf("open process %d: %w", p.PID, fs.ErrNotExist)
	}
	return fd, nil
}

// over says whether the process has ended with all its threads; its parent may not have taken note. For the first
// process of a PID namespace it means that all others in it are gone.
func (p process) over() bool {
	fd, err := p.open()
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err == nil && n == 1
}

// wait blocks until the process has ended and was reaped.
func (p process) wait(ctx context.Context) error {
	return poll(ctx, 2*time.Millisecond, func() (bool, error) { return !p.alive(), nil })
}

// poll calls done every so often until it says so or fails, or ctx ends.
func poll(ctx context.Context, every time.Duration, done func() (bool, error)) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// allPIDs lists the processes of the machine.
func allPIDs() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// marked finds the processes that bear the lab's mark: "lab VERB --lab DIR" behind the executable. dir "" means any.
func marked(dir string, verbs ...string) ([]process, error) {
	pids, err := allPIDs()
	if err != nil {
		return nil, err
	}
	var found []process
	for _, pid := range pids {
		p, err := findProcess(pid)
		if err != nil {
			continue // ended meanwhile
		}
		cmdline, err := os.ReadFile(procPath(pid, "cmdline"))
		if err != nil {
			continue
		}
		if verb, of := parseMark(cmdline); of != "" && slices.Contains(verbs, verb) && (dir == "" || dir == of) {
			found = append(found, p)
		}
	}
	return found, nil
}

// parseMark reads the mark out of a process's command line; dir is empty without one.
func parseMark(cmdline []byte) (verb, dir string) {
	args := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
	if len(args) < 5 || args[1] != "lab" || args[3] != "--lab" || !filepath.IsAbs(args[4]) {
		return "", ""
	}
	return args[2], args[4]
}

func procPath(pid int, elem ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(pid)}, elem...)...)
}
