package agent

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// processStart is the start time of a process in clock ticks since boot (field 22 of /proc/PID/stat, proc(5)): with the
// pid it names the process for the whole uptime. os.ErrNotExist when there is no such process; a zombie counts as gone.
func processStart(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("look for process %d: %w", pid, err)
	}
	return parseStat(pid, data)
}

func parseStat(pid int, data []byte) (uint64, error) {
	// The command name, in parentheses, may hold anything: fields are counted from its last closing one.
	i := bytes.LastIndexByte(data, ')')
	f := strings.Fields(string(data[i+1:]))
	if i < 0 || len(f) < 20 {
		return 0, fmt.Errorf("look for process %d: /proc/%d/stat is not as in proc(5)", pid, pid)
	}
	// While a thread other than the first calls execve the first is a zombie for a moment (de_thread, fs/exec.c), and a
	// process may outlive its first thread: only a zombie without other threads has ended.
	if threads, err := strconv.Atoi(f[17]); (f[0] == "Z" || f[0] == "X") && (err != nil || threads <= 1) {
		return 0, fmt.Errorf("look for process %d: it has ended: %w", pid, os.ErrNotExist)
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("look for process %d: start time: %w", pid, err)
	}
	return start, nil
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
