package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseList(t *testing.T) {
	got, err := parseList("FuzzB\nFuzzA\nok  \tweft/keys\t0.012s\n?   \tweft/pkg/x\t[no test files]\nhello from TestMain\nok  \tweft/dns\t0.1s\n" +
		"FuzzC\nok  \tweft/cmd/weft\t(cached)\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []target{{"weft/cmd/weft", "FuzzC"}, {"weft/keys", "FuzzA"}, {"weft/keys", "FuzzB"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(target{})); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
	if _, err := parseList("FuzzA\n"); err == nil {
		t.Error("a target of no package is taken")
	}
}

func TestResult(t *testing.T) {
	r := result{target: target{"weft/pkg/x", "FuzzA"}, took: 31 * time.Second, output: "fuzz: elapsed: 0s, gathering baseline coverage: 0/2 completed\n" +
		"fuzz: elapsed: 3s, execs: 10 (3/sec), new interesting: 1 (total: 3)\nfuzz: elapsed: 6s, execs: 25 (5/sec), new interesting: 1 (total: 3)\n"}
	if r.last() != "ok, 25 inputs in 31s" || r.findings() != nil {
		t.Errorf("%s, %q", r.last(), r.findings())
	}
	r.output += "    Failing input written to testdata/fuzz/FuzzA/0123\n    To re-run:\n"
	if diff := cmp.Diff([]string{"pkg/x/testdata/fuzz/FuzzA/0123"}, r.findings()); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

// TestRun finds and runs the targets of a module of its own: one that holds and one that does not.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the standard library with the fuzzer's instrumentation")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.org/m\n\ngo 1.26\n",
		"a_test.go": "package m\n\nimport \"testing\"\n\nfunc FuzzGood(f *testing.F) { f.Add(1); f.Fuzz(func(t *testing.T, n int) {}) }\n\n" +
			"func FuzzBad(f *testing.F) {\n\tf.Add(1)\n\tf.Fuzz(func(t *testing.T, n int) {\n\t\tif n != 1 {\n\t\t\tt.Error(n)\n\t\t}\n\t})\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("GOFLAGS", "")
	if err := run(t.Context(), []string{"-time", "1s", "-run", "Good"}); err != nil {
		t.Errorf("a target that holds: %v", err)
	}
	if err := run(t.Context(), []string{"-time", "5s"}); err == nil || err.Error() != "1 of 2 fuzz targets failed" {
		t.Errorf("a target that does not hold: %v", err)
	}
	if inputs, _ := filepath.Glob(filepath.Join(dir, "testdata/fuzz/FuzzBad/*")); len(inputs) != 1 {
		t.Errorf("failing inputs: %q", inputs)
	}
	for _, args := range [][]string{{"-run", "Nobody"}, {"-run", "("}, {"-nope"}} {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("run(%s) succeeds", strings.Join(args, " "))
		}
	}
}
