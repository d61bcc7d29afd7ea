package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// boot starts the guest and follows what it says until it is off.
func boot(ctx context.Context, o options, k kernelFiles, image string, chosen []suite) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("the guest was not done within %v", o.limit))
	defer cancel()
	// Pdeathsig belongs to the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// -cpu max has what the crypto modules ask for; a guest without -nic has no way out.
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", o.accel, "-cpu", "max", "-smp", "2",
		"-m", fmt.Sprint(o.memory), "-kernel", k.image, "-initrd", image,
		"-append", "console=ttyS0 quiet panic=-1 oops=panic mitigations=off random.trust_cpu=on",
		"-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, write
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return &unavailable{err}
	}
	said := make(chan *transcript, 1)
	go func() { said <- follow(read, o.verbose, began) }()
	err := cmd.Wait()
	write.Close()
	t := <-said
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	} else if err != nil {
		err = fmt.Errorf("qemu: %w", err)
	}
	err = errors.Join(err, t.verdict(chosen))
	if err != nil && !o.verbose && !o.broken {
		fmt.Print("--- what the guest said:\n", strings.Join(t.lines, "\n"), "\n--- end\n")
	}
	fmt.Printf("kernel: %s: %d tests passed, %d failed, %d skipped in the guest, %.0f s\n", k.pkg, t.passed, t.failed, len(t.skipped), time.Since(began).Seconds())
	for _, s := range t.skipped {
		fmt.Println("  skip", s)
	}
	return err
}

// transcript is what the guest said, and what follows from it.
type transcript struct {
	lines          []string
	suite          string
	ended          map[string]string // exit codes by suite
	up, done       bool
	passed, failed int
	skipped        []string
	left           []string
}

var result = regexp.MustCompile(`^( *)--- (PASS|FAIL|SKIP): (\S+) \((\S+)\)`)

// follow reads the serial line. Top-level tests are printed as they end.
func follow(r io.Reader, verbose bool, began time.Time) *transcript {
	t := &transcript{ended: map[string]string{}}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 4<<20)
	for sc.Scan() {
		line := strings.TrimRight(sc.Text(), "\r")
		t.lines = append(t.lines, line)
		if verbose {
			fmt.Printf("%6.1f  %s\n", time.Since(began).Seconds(), line)
		}
		if shown := t.take(line); shown != "" && !verbose {
			fmt.Printf("%6.1f  %s\n", time.Since(began).Seconds(), shown)
		}
	}
	_, _ = io.Copy(io.Discard, r) // a line beyond the limit must not stop the guest
	return t
}

// take reads one line and returns what is worth telling of it.
func (t *transcript) take(line string) string {
	f := strings.Fields(line)
	switch {
	case len(f) == 0:
	case f[0] == markUp && len(f) == 3:
		t.up = true
		return "guest is up: Linux " + f[1]
	case f[0] == markSuite && len(f) == 2:
		t.suite = f[1]
	case f[0] == markEnd && len(f) == 3:
		t.ended[f[1]] = f[2]
	case f[0] == markDone:
		t.done = true
	case f[0] == "left" && len(f) > 2 && f[1] == "behind:":
		t.left = append(t.left, strings.Join(f[2:], " "))
	}
	m := result.FindStringSubmatch(line)
	if m == nil {
		return ""
	}
	switch m[2] {
	case "PASS":
		t.passed++
	case "FAIL":
		t.failed++
	case "SKIP":
		t.skipped = append(t.skipped, t.suite+" "+m[3])
	}
	if m[1] != "" && m[2] == "PASS" {
		return ""
	}
	return fmt.Sprintf("%s %-9s %s %s", m[2], t.suite, m[3], m[4])
}

// failure is a verdict that is not good; tests is how many failed.
type failure struct {
	tests int
	err   error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// verdict is nil when every suite ran to its end and nothing failed.
func (t *transcript) verdict(chosen []suite) error {
	var errs []error
	if !t.up {
		errs = append(errs, errors.New("the guest did not boot"))
	}
	for _, s := range chosen {
		switch code, ended := t.ended[s.name]; {
		case !ended:
			errs = append(errs, fmt.Errorf("suite %s did not end", s.name))
		case code != "0":
			errs = append(errs, fmt.Errorf("suite %s failed", s.name))
		}
	}
	if len(errs) == 0 && !t.done {
		errs = append(errs, errors.New("the guest ended before it was done"))
	}
	for _, l := range t.left {
		errs = append(errs, errors.New("left behind in the guest: "+l))
	}
	if t.passed == 0 {
		errs = append(errs, errors.New("no test ran"))
	}
	if len(t.skipped) > 0 && os.Getenv("CI") == "true" {
		errs = append(errs, errors.New("tests were skipped, and CI=true allows none"))
	}
	if err := errors.Join(errs...); err != nil {
		return &failure{t.failed, err}
	}
	return nil
}
