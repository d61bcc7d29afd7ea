package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"weft/pkg/api"
)

const (
	idleWindow = 30 * time.Second
	rssTarget  = 40 // MB with 100 endpoints
	clockTick  = 10 * time.Millisecond
)

// measureAgent watches the agent of n1 while it has nothing to do.
func measureAgent(ctx context.Context, b *bench) error {
	return b.inLab(ctx, 3, func(s *stage) error {
		n, err := s.network(true)
		if err != nil {
			return err
		}
		if _, err := s.resident(s.n2(), n.Name, "there"); err != nil {
			return err
		}
		pid, err := s.lab.AgentPID("n1")
		if err != nil {
			return err
		}
		have := 0
		for _, want := range []int{0, 20, 100} {
			if want > have {
				held, err := s.hold(s.n1(), n.Name, "", want-have)
				if err != nil {
					return err
				}
				took := time.Duration(monotonic() - held.Start)
				b.report.add("agent", fmt.Sprintf("API call → answer while %d endpoints become %d", have, want), "ms", held.Took...)
				s.say("  %d endpoints more in %.1f s, now %.0f s idle", want-have, took.Seconds(), idleWindow.Seconds())
				have = want
			}
			if err := s.idle(ctx, pid, want); err != nil {
				return err
			}
		}
		return s.memory(pid)
	})
}

// idle takes the CPU time of 30 s.
func (s *stage) idle(ctx context.Context, pid, endpoints int) error {
	if err := s.settle(ctx, 5*time.Second); err != nil {
		return err
	}
	p0, t0, err := s.readWork(ctx, pid)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := s.settle(ctx, idleWindow); err != nil {
		return err
	}
	elapsed := time.Since(began)
	p1, t1, err := s.readWork(ctx, pid)
	if err != nil {
		return err
	}
	cpu, passes := t1-t0, p1.Reconcile.Passes-p0.Reconcile.Passes
	name := fmt.Sprintf("idle, %d endpoints: ", endpoints)
	s.report.add("agent", name+"CPU", "% of a core", 100*cpu.Seconds()/elapsed.Seconds())
	if passes > 0 {
		s.report.add("agent", name+"CPU per pass, all included", "ms", cpu.Seconds()*1e3/float64(passes))
	}
	s.report.add("agent", name+"operations applied", "", float64(p1.Reconcile.Applied-p0.Reconcile.Applied)).zero()
	return nil
}

func (s *stage) readWork(ctx context.Context, pid int) (st api.Status, cpu time.Duration, err error) {
	if st, err = s.lab.AgentStatus(ctx, "n1"); err != nil {
		return st, 0, err
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return st, 0, fmt.Errorf("read CPU time: %w", err)
	}
	cpu, err = parseCPU(data)
	return st, cpu, err
}

// memory reads what the agent holds, and the engines beside it.
func (s *stage) memory(pid int) error {
	status, err := readStatus(pid)
	if err != nil {
		return err
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return fmt.Errorf("read file descriptors: %w", err)
	}
	r := &s.report
	r.add("agent", "100 endpoints: resident", "MB", status["VmRSS"]/1024).below(rssTarget)
	r.add("agent", "100 endpoints: of that anonymous", "MB", status["RssAnon"]/1024)
	r.add("agent", "100 endpoints: highest resident so far", "MB", status["VmHWM"]/1024)
	r.add("agent", "100 endpoints: file descriptors", "", float64(len(fds)))
	r.add("agent", "100 endpoints: threads", "", status["Threads"])
	pids, err := s.lab.Pids("n1")
	if err != nil {
		return err
	}
	for _, p := range pids {
		cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p), "cmdline"))
		if args := strings.Split(string(cmdline), "\x00"); err != nil || len(args) < 2 || args[1] != "engine" {
			continue // also one that has ended meanwhile
		}
		status, err := readStatus(p)
		if err != nil {
			return err
		}
		r.add("agent", "for comparison: its engine process, resident", "MB", status["VmRSS"]/1024)
	}
	return nil
}

func readStatus(pid int) (map[string]float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, fmt.Errorf("read memory: %w", err)
	}
	return parseStatus(data), nil
}

// parseStatus takes the numbers of /proc/PID/status (proc(5)): sizes are in KB.
func parseStatus(data []byte) map[string]float64 {
	out := map[string]float64{}
	for line := range strings.Lines(string(data)) {
		key, rest, _ := strings.Cut(line, ":")
		if f := strings.Fields(rest); len(f) > 0 {
			if v, err := strconv.ParseFloat(f[0], 64); err == nil {
				out[key] = v
			}
		}
	}
	return out
}

// parseCPU is utime and stime, fields 14 and 15 of /proc/PID/stat, in units of 1/100 s (USER_HZ on all Linux that Go
// runs on). The command name may hold anything: fields count from its last parenthesis.
func parseCPU(stat []byte) (time.Duration, error) {
	text := string(stat)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 13 {
		return 0, fmt.Errorf("read CPU time: %q is not as in proc(5)", text)
	}
	user, err := strconv.ParseUint(f[11], 10, 40)
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	system, err := strconv.ParseUint(f[12], 10, 40)
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return time.Duration(user+system) * clockTick, nil
}
