package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"weft/pkg/lab"
)

// measures in the order in which they run.
var measures = []struct {
	name  string
	about string
	run   func(context.Context, *bench) error
}{
	{"attach", "from the start of an attach to the first cross-host reply", measureAttach},
	{"names", "until a new endpoint is reachable by name from another host", measureNames},
	{"agent", "memory, file descriptors and idle CPU with 0, 20 and 100 endpoints", measureAgent},
	{"throughput", "one TCP stream and idle ping between two hosts, against named peers", measureThroughput},
	{"writes", "Consul writes and passes per attach, and KV writes of an idle mesh", measureWrites},
}

func main() {
	if len(os.Args) > 1 { // what the bench runs inside the lab
		switch os.Args[1] {
		case "probe":
			os.Exit(probeMain(os.Args[2:]))
		case "hand":
			os.Exit(handMain())
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run: where its programs are, and what was found so far.
type bench struct {
	root, self string
	dir        string // of this run, removed at its end
	weft       string // a copy of bin/weft in it: one run measures one program, also when somebody builds meanwhile
	rounds     int
	began      time.Time
	report     report
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.Usage = func() { usage(f) }
	only := f.String("only", "", "run the measures that `REGEX` matches")
	rounds := f.Int("rounds", 5, "repeat each comparison `N` times, each attach 5·N times")
	format := f.String("o", "text", "text or json")
	if err := f.Parse(args); err != nil {
		return err
	}
	pattern, err := regexp.Compile(*only)
	switch {
	case err != nil:
		return fmt.Errorf("-only: %w", err)
	case f.NArg() > 0 || *rounds < 1 || *rounds > 1000 || *format != "text" && *format != "json":
		usage(f)
		return errors.New("wrong arguments")
	case os.Geteuid() != 0:
		return fmt.Errorf("needs root: it makes network namespaces: %w", fs.ErrPermission)
	}
	// One at a time: two would measure each other. The name goes with the process.
	lock, err := net.Listen("unix", "@weft-bench")
	if err != nil {
		return errors.New("another bench runs on this machine: wait for its end")
	}
	defer lock.Close()
	b, err := newBench(*rounds)
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	err = b.all(ctx, pattern)
	if perr := b.report.print(os.Stdout, *format); err == nil {
		err = perr
	}
	return err
}

func usage(f *flag.FlagSet) {
	fmt.Fprintf(f.Output(), "usage: go run ./test/bench [-only REGEX] [-rounds N] [-o json]\n\nMeasures:\n")
	for _, m := range measures {
		fmt.Fprintf(f.Output(), "  %-11s %s\n", m.name, m.about)
	}
	fmt.Fprintln(f.Output(), "\nFlags:")
	f.PrintDefaults()
}

func newBench(rounds int) (*bench, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("find module: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own binary: %w", err)
	}
	b := &bench{root: filepath.Dir(strings.TrimSpace(string(out))), self: self, rounds: rounds, began: time.Now()}
	for _, name := range []string{"weft", "consul"} {
		if _, err := os.Stat(b.bin(name)); err != nil {
			return nil, fmt.Errorf("no %s: run make build consul first: %w", b.bin(name), fs.ErrNotExist)
		}
	}
	if b.dir, err = os.MkdirTemp("", "weft-bench-"); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	b.weft = filepath.Join(b.dir, "weft")
	if err = copyProgram(b.bin("weft"), b.weft); err == nil {
		err = b.report.machine(b.weft)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(b.dir))
	}
	return b, nil
}

func copyProgram(from, to string) error {
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}

func (b *bench) bin(name string) string { return filepath.Join(b.root, "bin", name) }

// all runs the measures that pattern matches. One that fails does not stop the others, only ctx does.
func (b *bench) all(ctx context.Context, pattern *regexp.Regexp) error {
	var errs []error
	ran := 0
	for _, m := range measures {
		if ctx.Err() != nil || !pattern.MatchString(m.name) {
			continue
		}
		ran++
		b.say("%s: %s", m.name, m.about)
		if err := m.run(ctx, b); err != nil && ctx.Err() == nil {
			b.say("%s FAILED: %v", m.name, err)
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted; what was measured before is in the table, and the lab is gone")
	case ran == 0:
		return fmt.Errorf("-only %s matches no measure", pattern)
	}
	return errors.Join(errs...)
}

// say shows progress.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1f s  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// inLab runs f in a fresh lab and takes the lab down again, whatever happens.
func (b *bench) inLab(ctx context.Context, nodes int, f func(*stage) error) (err error) {
	const name = "bench"
	if err := lab.Down(ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("take down the lab of an earlier bench: %w", err)
	}
	l, err := lab.Up(ctx, lab.Options{Name: name, Nodes: nodes, Weft: b.weft, Consul: b.bin("consul")})
	if err != nil {
		return err
	}
	defer func() {
		clear, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, l.Down(clear))
	}()
	b.say("  lab of %d hosts is up", nodes)
	s := &stage{bench: b, lab: l, hands: map[string]*hand{}}
	defer s.close()
	if err := s.open(ctx); err != nil {
		return err
	}
	return f(s)
}
