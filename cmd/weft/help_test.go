package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write testdata/help.txt anew")

// owners lists the commands whose help is made elsewhere and may change without this file: only its form is checked.
var owners = []string{"agent", "config", "lab"}

// Every command's help is one screen, with examples; what it says stands in testdata/help.txt.
func TestHelp(t *testing.T) {
	t.Setenv("WEFT_SOCKET", "")
	var golden strings.Builder
	var walk func(path []string, cmd *cobra.Command)
	walk = func(path []string, cmd *cobra.Command) {
		if cmd.DisableFlagParsing {
			return // started by weft itself: a part of the lab, or cobra's completion
		}
		args := append(append([]string{}, path...), "--help")
		code, out, errs := runPlain(args)
		name := strings.Join(append([]string{"weft"}, path...), " ")
		if code != 0 || errs != "" {
			t.Errorf("%s --help: exit %d, %s", name, code, errs)
		}
		lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
		if len(lines) > 24 {
			t.Errorf("%s --help has %d lines, want at most 24", name, len(lines))
		}
		for _, l := range lines {
			if len([]rune(l)) > helpWidth {
				t.Errorf("%s --help: a line of %d columns: %s", name, len([]rune(l)), l)
			}
		}
		if !strings.Contains(out, "\nExamples:\n  weft ") && !strings.Contains(out, "\nExamples:\n  source ") {
			t.Errorf("%s --help has no examples", name)
		}
		if cmd.Short == "" {
			t.Errorf("%s has no short description", name)
		}
		if len(path) > 0 && !isOwned(path[0]) {
			golden.WriteString("=== " + name + "\n" + out + "\n")
		}
		for _, sub := range cmd.Commands() {
			walk(append(append([]string{}, path...), sub.Name()), sub)
		}
	}
	walk(nil, (&app{}).command())

	file := filepath.Join("testdata", "help.txt")
	if *update {
		if err := os.WriteFile(file, []byte(golden.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), golden.String()); diff != "" {
		t.Errorf("help (-want +got), go test ./cmd/weft -update writes it:\n%s", diff)
	}
}

func TestHelpFull(t *testing.T) {
	code, out, errs := runPlain([]string{"help", "--full", "agent"})
	if code != 0 || errs != "" || !strings.Contains(out, "--consul-token-file string ") {
		t.Errorf("exit %d, %s:\n%s", code, errs, out)
	}
}

func isOwned(name string) bool {
	for _, o := range owners {
		if o == name {
			return true
		}
	}
	return false
}

func runPlain(args []string) (int, string, string) {
	var out, errs bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
	code := a.main(context.Background(), args)
	return code, out.String(), errs.String()
}

// Bad command lines: code 2, one line that says what is wrong and where to read on, and nothing on stdout.
func TestUsageErrors(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"netwrk ls", `unknown command "netwrk", did you mean "network"?; see "weft --help"`},
		{"frobnicate", `unknown command "frobnicate"; see "weft --help"`},
		{"--frobnicate", `unknown flag: --frobnicate; see "weft --help"`},
		{"netwrk create x --encrypted", `unknown command "netwrk", did you mean "network"?; see "weft --help"`},
		{"network", `which network command? create, inspect, ls, rm; see "weft network --help"`},
		{"network creat x --encrypted", `unknown command "creat", did you mean "create"?; see "weft network --help"`},
		{"network create", `NAME is missing; see "weft network create --help"`},
		{"network create a b", `unexpected argument "b"; see "weft network create --help"`},
		{"network create a --mtu z", `--mtu "z": invalid syntax; see "weft network create --help"`},
		{"network create a --mtu 0", `--mtu 0: want a positive number of bytes; see "weft network create --help"`},
		{"network create a --label b", `--label "b" is not K=V; see "weft network create --help"`},
		{"network ls -o xml", `invalid argument "xml" for "-o, --output" flag: want text or json; see "weft network ls --help"`},
		{"network ls x", `unexpected argument "x"; see "weft network ls --help"`},
		{"run", `NETWORK is missing; see "weft run --help"`},
		{"run -- true", `NETWORK is missing; see "weft run --help"`},
		{"run net", `the program to run is missing: weft run net -- CMD; see "weft run --help"`},
		{"run net sh -c x", `put -- before the program: weft run net -- sh ...; see "weft run --help"`},
		{"run net true", `put -- before the program: weft run net -- true ...; see "weft run --help"`},
		{"run net more -- true", `unexpected argument "more" before --; see "weft run --help"`},
		{"run net --log x -- true", `--log is for --detach: without it the output is here; see "weft run --help"`},
		{"run net -o json -- true", `--output is for --detach: without it the output is the program's; see "weft run --help"`},
		{"exec web", `the program to run is missing: weft exec web -- CMD; see "weft exec --help"`},
		{"attach net", `give either --netns or --pid; see "weft attach --help"`},
		{"attach net --pid 7 --netns x", `give either --netns or --pid; see "weft attach --help"`},
		{"attach net --pid 0", `--pid 0 is not a process id; see "weft attach --help"`},
		{"detach", `ENDPOINT is missing; see "weft detach --help"`},
		{"help nonsense", `unknown command "nonsense"; see "weft help --help"`},
		{"help network creat", `unknown command "creat", did you mean "create"?; see "weft help --help"`},
		{"completion tcsh", `no completion for "tcsh": bash, zsh or fish; see "weft completion --help"`},
		{"engine", `--device and --mtu must be given; see "weft engine --help"`},
	} {
		t.Run(tt.line, func(t *testing.T) {
			code, out, errs := weft(t, "/nonexistent", strings.Fields(tt.line)...)
			if code != exitUsage || out != "" || errs != "weft: "+tt.want+"\n" {
				t.Errorf("exit %d, stdout %q, stderr:\n%swant:\nweft: %s", code, out, errs, tt.want)
			}
		})
	}
}

func TestVersionNeedsNoAgent(t *testing.T) {
	for _, line := range []string{"version", "--version", "version -o json"} {
		code, out, errs := weft(t, "/nonexistent", strings.Fields(line)...)
		if code != 0 || errs != "" || !strings.Contains(out, version) || !strings.Contains(out, "go1.") {
			t.Errorf("%s: exit %d, %q, %q", line, code, out, errs)
		}
	}
}
