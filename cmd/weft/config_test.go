package main

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var updateConfigGolden = flag.Bool("update-config", false, "rewrite testdata/config-*")

// runConfig runs `weft config ARGS` in a clean environment.
func runConfig(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, value, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "WEFT_") {
			t.Setenv(name, value) // restores it afterwards
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("WEFT_LOG_LEVEL", "debug")
	var out, errs bytes.Buffer
	cmd := newConfigCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.Execute()
	return out.String(), errs.String(), err
}

func TestConfigShowGolden(t *testing.T) {
	tests := []struct {
		name string
		args []string
	}{
		{"config-show.txt", nil},
		{"config-show.json", []string{"-o", "json"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join("testdata", "config.yaml")
			if err := os.Chmod(path, 0o600); err != nil { // a checkout makes it readable, which is a warning
				t.Fatal(err)
			}
			out, errs, err := runConfig(t, append([]string{"show", "--config", path}, tt.args...)...)
			if err != nil || errs != "" {
				t.Fatalf("error %v, stderr %q", err, errs)
			}
			if strings.Contains(out, "s3cr3t") {
				t.Error("the token is printed")
			}
			golden := filepath.Join("testdata", tt.name)
			if *updateConfigGolden {
				if err := os.WriteFile(golden, []byte(out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), out); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestConfigCheck(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"good.yaml":   "node_name: n1\ndns: {upstreams: [192.0.2.53]}\n",
		"public.yaml": "node_name: n1\nconsul: {token: s3cr3t}\ndns: {upstreams: [192.0.2.53]}\n",
		"bad.yaml":    "consul: {adress: x}\nvxlan: {port: 0}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil { // whatever the umask
			t.Fatal(err)
		}
	}
	tests := []struct{ name, out, errs, err string }{
		{"good.yaml", "OK: DIR/good.yaml\n", "", ""},
		{"public.yaml", "OK: DIR/public.yaml\n", "warning: DIR/public.yaml: holds consul.token and everybody can read it: chmod o-r DIR/public.yaml\n", ""},
		{"bad.yaml", "", "DIR/bad.yaml: consul.adress: unknown key; did you mean consul.address?\nDIR/bad.yaml: vxlan.port: \"0\" is not a port number from 1 to 65535\n", "exit 1"},
		{"none.yaml", "", "DIR/none.yaml: stat: no such file or directory\n", "exit 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, errs, err := runConfig(t, "check", filepath.Join(dir, tt.name))
			got := []string{out, errs, ""}
			if err != nil {
				got[2] = err.Error()
			}
			for i := range got {
				got[i] = strings.ReplaceAll(got[i], dir, "DIR")
			}
			if d := cmp.Diff([]string{tt.out, tt.errs, tt.err}, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestConfigUsage(t *testing.T) {
	for _, args := range [][]string{{"check", "a", "b"}, {"show", "a"}, {"show", "-o", "xml"}} {
		if _, _, err := runConfig(t, args...); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

func TestConfigHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"check", "--help"}, {"show", "--help"}} {
		cmd := newConfigCommand()
		var out bytes.Buffer
		cmd.SetArgs(args)
		cmd.SetOut(&out)
		cmd.SetErr(io.Discard)
		if err := cmd.Execute(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "\n"); n > 24 || !strings.Contains(out.String(), "Examples:") {
			t.Errorf("%v: %d lines, want one screen with examples:\n%s", args, n, out.String())
		}
	}
}
