package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

type options struct {
	kernel  string // Debian package, may be a meta-package
	suites  *regexp.Regexp
	run     string // replaces each suite's choice of tests
	full    bool
	broken  bool
	limit   time.Duration
	memory  int // MiB
	accel   string
	verbose bool
	overlay string // file for go build -overlay
}

func main() {
	var o options
	flag.StringVar(&o.kernel, "kernel", "linux-image-cloud-amd64", "Debian `package` of the kernel")
	suite := flag.String("suite", "", "only suites whose name matches this `regex`")
	flag.StringVar(&o.run, "run", "", "the tests to run in place of each suite's own choice, as in go test -run")
	flag.BoolVar(&o.full, "full", false, "run all tests of each suite; give it a -limit of 30m")
	flag.BoolVar(&o.broken, "broken", false, "run builds with known faults, which must fail")
	flag.DurationVar(&o.limit, "limit", 8*time.Minute, "end the guest after this `time`")
	flag.IntVar(&o.memory, "memory", 2048, "the guest's memory in `MiB`")
	flag.StringVar(&o.accel, "accel", "tcg,thread=multi", "QEMU's accelerator; kvm is not tried by itself, for where it is nested it may hang")
	flag.BoolVar(&o.verbose, "v", false, "print all the guest says")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	var err error
	if o.suites, err = regexp.Compile(*suite); err == nil {
		err = run(ctx, o)
	}
	var missing *unavailable
	switch {
	case err == nil:
	case errors.As(err, &missing) && os.Getenv("CI") != "true":
		fmt.Println("kernel: 1 skipped:", err)
	default:
		fmt.Fprintln(os.Stderr, "kernel:", err)
		stop()
		os.Exit(1)
	}
}

// unavailable says that this machine cannot run a guest.
type unavailable struct{ err error }

func (u *unavailable) Error() string { return "no guest here: " + u.err.Error() }
func (u *unavailable) Unwrap() error { return u.err }

func run(ctx context.Context, o options) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	k, err := prepare(ctx, o.kernel)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &unavailable{err}
	}
	if o.broken {
		return runBroken(ctx, root, k, o)
	}
	return runGuest(ctx, root, k, o)
}

// runGuest builds what goes into the guest, and boots it.
func runGuest(ctx context.Context, root string, k kernelFiles, o options) error {
	chosen, err := choose(o)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "weft-kernel-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := compile(ctx, root, dir, chosen, o); err != nil {
		return err
	}
	image := filepath.Join(dir, "initramfs")
	if err := writeImage(ctx, image, root, dir, k, chosen); err != nil {
		return err
	}
	return boot(ctx, o, k, image, chosen)
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return string(out[:len(out)-1]), nil
}
