package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// target is one fuzz target.
type target struct{ pkg, name string }

func (t target) String() string { return t.pkg + "." + t.name }

// find lists the fuzz targets of packages with `go test -list`.
func find(ctx context.Context, packages []string) ([]target, error) {
	var errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-list", "^Fuzz"}, packages...)...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list fuzz targets: %w\n%s%s", err, out, errs.String())
	}
	return parseList(string(out))
}

// parseList reads the output of `go test -list`: names, and after those of a package a line that says "ok" and which.
func parseList(out string) ([]target, error) {
	var targets []target
	var names []string
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || f[0] == "?": // "?  weft/x  [no test files]"
		case f[0] == "ok" && len(f) > 1:
			for _, n := range names {
				targets = append(targets, target{f[1], n})
			}
			names = nil
		case len(f) == 1 && strings.HasPrefix(f[0], "Fuzz"):
			names = append(names, f[0])
		default: // what a TestMain prints
		}
	}
	if len(names) > 0 {
		return nil, fmt.Errorf("list fuzz targets: no package is named for %s", strings.Join(names, ", "))
	}
	slices.SortFunc(targets, func(a, b target) int { return strings.Compare(a.String(), b.String()) })
	return targets, nil
}

// minimize bounds how long the fuzzer works on making one input smaller. Its default of a minute would take all the time.
const minimize = "2s"

// grace is what building, seeds and the end may take beside the fuzzing itself.
const grace = 5 * time.Minute

// result is how a run of a target ended.
type result struct {
	target target
	took   time.Duration
	output string
	err    error
}

// fuzz runs a target for a time. A target that hangs is a finding too.
func (t target) fuzz(ctx context.Context, each time.Duration) result {
	limit, cancel := context.WithTimeout(ctx, each+grace)
	defer cancel()
	begin := time.Now()
	cmd := exec.CommandContext(limit, "go", "test", t.pkg, "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String(),
		"-fuzzminimizetime", minimize)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	r := result{target: t, took: time.Since(begin), output: string(out), err: err}
	switch {
	case limit.Err() != nil && ctx.Err() == nil:
		r.err = errors.New("it hangs")
	case err == nil && r.execs() == "":
		r.err = errors.New("it executed nothing") // the pattern met no target
	case err != nil:
		r.err = errors.New("it found something, or does not run")
	}
	return r
}

var (
	progress = regexp.MustCompile(`fuzz: elapsed: \S+, execs: (\d+) .*`)
	written  = regexp.MustCompile(`Failing input written to (\S+)`)
)

// execs is how many inputs were tried, empty when that is not known.
func (r result) execs() string {
	all := progress.FindAllStringSubmatch(r.output, -1)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1][1]
}

// last is one line about a run that found nothing.
func (r result) last() string {
	return fmt.Sprintf("ok, %s inputs in %s", r.execs(), r.took.Round(time.Second))
}

// findings are the files of failing inputs, relative to the root of the module.
func (r result) findings() []string {
	var out []string
	for _, m := range written.FindAllStringSubmatch(r.output, -1) {
		out = append(out, path.Join(strings.TrimPrefix(strings.TrimPrefix(r.target.pkg, "weft"), "/"), m[1]))
	}
	return out
}
