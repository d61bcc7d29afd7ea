// Command report runs `go test` and says, per package, what ran, what failed and what was skipped and why.
//
// With CI=true a skipped test fails the run: a suite that could not run has proved nothing.
//
//	go run ./test/report [go test flags] -- PACKAGE...
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// suite is what is known of one package.
type suite struct {
	passed, failed, skipped int
	names                   []string // of failed and skipped tests, with the reason
	output                  map[string][]string
	elapsed                 float64
	broken                  bool
}

func run(args []string) error {
	flags, packages := args, []string(nil)
	if i := slices.Index(args, "--"); i >= 0 {
		flags, packages = args[:i], args[i+1:]
	}
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	race := "no: no C compiler here (apt-get install gcc libc6-dev)"
	// One package at a time: many of them make hosts, and some measure.
	argv := []string{"test", "-json", "-count=1", "-timeout=40m", "-p=1"}
	env := append(os.Environ(), "CGO_ENABLED=0")
	if _, err := exec.LookPath("gcc"); err == nil {
		race = "on"
		argv = append(argv, "-race")
		env = append(os.Environ(), "CGO_ENABLED=1")
	}
	fmt.Printf("go test, race detector %s, user id %d\n", race, os.Geteuid())
	if err := compile(argv, packages, env); err != nil {
		return err
	}
	cmd := exec.Command("go", append(append(argv, flags...), packages...)...)
	cmd.Env, cmd.Stderr = env, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	suites, err := read(out)
	return errors.Join(err, summary(suites, time.Since(began), race == "on"), wait(cmd))
}

// compile fills the build cache with all cores, so that the tests after it need not.
func compile(argv, packages, env []string) error {
	args := []string{"build"}
	if slices.Contains(argv, "-race") {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, packages...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	return nil
}

func wait(cmd *exec.Cmd) error {
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go test: %w", err)
	}
	return nil
}

func read(r io.Reader) (map[string]*suite, error) {
	suites := map[string]*suite{}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var e event
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			fmt.Println(sc.Text()) // what the compiler says
			continue
		}
		if e.Package == "" {
			if e.Output != "" {
				fmt.Print(e.Output)
			}
			continue
		}
		s := suites[e.Package]
		if s == nil {
			s = &suite{output: map[string][]string{}}
			suites[e.Package] = s
		}
		s.take(e)
	}
	return suites, sc.Err()
}

func (s *suite) take(e event) {
	switch e.Action {
	case "output":
		s.output[e.Test] = append(s.output[e.Test], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.end(e)
			return
		}
		s.count(e)
	}
}

func (s *suite) count(e event) {
	switch e.Action {
	case "pass":
		s.passed++
	case "fail":
		s.failed++
		s.names = append(s.names, "FAIL "+e.Test)
		fmt.Printf("--- %s %s\n%s", e.Package, e.Test, strings.Join(s.output[e.Test], ""))
	case "skip":
		s.skipped++
		s.names = append(s.names, "skip "+e.Test+": "+reason(s.output[e.Test]))
	}
	delete(s.output, e.Test)
}

// end closes a package; one that failed outside its tests (build, panic, leak check) shows what it printed.
func (s *suite) end(e event) {
	s.elapsed = e.Elapsed
	s.broken = e.Action == "fail"
	word := "ok  "
	if s.broken {
		word = "FAIL"
		if s.failed == 0 {
			for _, lines := range s.output {
				fmt.Print(strings.Join(lines, ""))
			}
		}
	}
	if s.passed+s.failed+s.skipped == 0 && !s.broken {
		return // no tests
	}
	fmt.Printf("%s %-28s %4d passed %3d failed %3d skipped %7.1f s\n", word, e.Package, s.passed, s.failed, s.skipped, s.elapsed)
}

// reason is the text of t.Skip.
func reason(lines []string) string {
	for _, l := range slices.Backward(lines) {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "---") && !strings.HasPrefix(l, "===") {
			return l
		}
	}
	return "no reason given"
}

func summary(suites map[string]*suite, took time.Duration, race bool) error {
	var total suite
	var names []string
	for _, p := range slices.Sorted(func(yield func(string) bool) {
		for p := range suites {
			if !yield(p) {
				return
			}
		}
	}) {
		s := suites[p]
		total.passed += s.passed
		total.failed += s.failed
		total.skipped += s.skipped
		total.broken = total.broken || s.broken
		for _, n := range s.names {
			names = append(names, p+" "+n)
		}
	}
	fmt.Printf("\n%d tests passed, %d failed, %d skipped, in %.0f s\n", total.passed, total.failed, total.skipped, took.Seconds())
	for _, n := range names {
		fmt.Println("  " + n)
	}
	ci := os.Getenv("CI") == "true"
	switch {
	case total.failed > 0 || total.broken:
		return errors.New("tests failed")
	case ci && total.skipped > 0:
		return errors.New("tests were skipped, and CI=true allows none")
	case ci && !race:
		return errors.New("the race detector did not run, and CI=true asks for it")
	case total.passed == 0:
		return errors.New("no test ran")
	}
	return nil
}
