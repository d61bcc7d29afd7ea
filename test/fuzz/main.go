package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("fuzz", flag.ContinueOnError)
	each := flags.Duration("time", 30*time.Second, "how long each target runs")
	which := flags.String("run", "", "only targets whose package and name, as weft/dns.FuzzRespond, match this expression")
	if err := flags.Parse(args); err != nil {
		return err
	}
	match, err := regexp.Compile(*which)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	packages := flags.Args()
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	fmt.Println("looking for fuzz targets: this builds all tests")
	all, err := find(ctx, packages)
	if err != nil {
		return err
	}
	var targets []target
	for _, t := range all {
		if match.MatchString(t.String()) {
			targets = append(targets, t)
		}
	}
	if len(targets) == 0 {
		return errors.New("no fuzz target found")
	}
	fmt.Printf("%d targets, %s each: done in about %s\n", len(targets), *each, (time.Duration(len(targets)) * *each).Round(time.Minute))
	return fuzzAll(ctx, targets, *each)
}

// fuzzAll runs the targets one after the other: they use all processors. It goes on after a finding.
func fuzzAll(ctx context.Context, targets []target, each time.Duration) error {
	var found []result
	for i, t := range targets {
		fmt.Printf("[%d/%d] %-60s", i+1, len(targets), t)
		r := t.fuzz(ctx, each)
		if ctx.Err() != nil {
			fmt.Println("interrupted")
			return summary(targets[:i], found, len(targets))
		}
		if r.err != nil {
			fmt.Printf("FAILED after %s\n%s\n", r.took.Round(time.Second), indent(r.output))
			found = append(found, r)
			continue
		}
		fmt.Printf("%s\n", r.last())
	}
	return summary(targets, found, len(targets))
}

func summary(done []target, found []result, all int) error {
	fmt.Printf("\n%d of %d targets ran, %d failed\n", len(done), all, len(found))
	for _, r := range found {
		fmt.Printf("  %s: %v\n", r.target, r.err)
		for _, f := range r.findings() {
			fmt.Printf("    input: %s\n", f)
		}
	}
	switch {
	case len(found) > 0:
		return fmt.Errorf("%d of %d fuzz targets failed", len(found), all)
	case len(done) < all:
		return fmt.Errorf("%d of %d fuzz targets did not run", all-len(done), all)
	}
	return nil
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n    ")
}
