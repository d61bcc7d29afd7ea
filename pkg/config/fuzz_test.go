package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fuzzLoad demands that Load never panics, gives a result or an error, and that every error is one line without the token in it.
func fuzzLoad(f *testing.F, format string) {
	example, err := os.ReadFile("../../deploy/config/weft." + format + ".example")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	for _, seed := range []string{"", "{}", "consul", "consul:\n  token: s3cr3t\n", "consul { token = \"s3cr3t\" }", "[consul]\ntoken = \"s3cr3t\"\n", `{"consul": {"token": "s3cr3t"}}`,
		"a: &a [*a]", "x = <<E\ns3cr3t\nE\n", "x = 1e999", "x = 099", "[[[[[[[[[[[[[[", "a = 1979-05-27T07:32:00Z"} {
		f.Add([]byte(seed))
	}
	o := options(f.TempDir())
	f.Fuzz(func(t *testing.T, data []byte) {
		o.Path = filepath.Join(t.TempDir(), "weft."+format)
		if err := os.WriteFile(o.Path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Load(o)
		if err == nil {
			if len(l.Settings()) != len(settings) {
				t.Error("keys are missing")
			}
			return
		}
		if l != nil {
			t.Error("a result beside the error")
		}
		for _, e := range err.(Errors) {
			if strings.ContainsAny(e.Error(), "\n\r\x1b") || e.Message == "" {
				t.Errorf("%q is not one line", e)
			}
		}
	})
}

func FuzzLoadYAML(f *testing.F) { fuzzLoad(f, "yaml") }
func FuzzLoadTOML(f *testing.F) { fuzzLoad(f, "toml") }
func FuzzLoadJSON(f *testing.F) { fuzzLoad(f, "json") }
func FuzzLoadHCL(f *testing.F)  { fuzzLoad(f, "hcl") }

func FuzzEnv(f *testing.F) {
	for i := range settings {
		f.Add(i, "10.0.0.0/8,x")
	}
	o := options(f.TempDir())
	f.Fuzz(func(t *testing.T, i int, value string) {
		s := settings[uint(i)%uint(len(settings))]
		o.Environ = []string{s.env() + "=" + value}
		if l, err := Load(o); err == nil {
			// What is printed can be read again and means the same.
			again := o
			if value = strings.Join(s.fetch(&l.Config), ","); !s.secret && !s.flagOnly && value != "" {
				again.Environ = []string{s.env() + "=" + value}
				diff(t, l.Config, mustLoad(t, again).Config)
			}
		}
	})
}

func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\nnameserver fe80::1%eth0\noptions edns0\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		servers := parseResolvConf(data)
		if len(servers) > maxNameservers {
			t.Error("too many")
		}
		for _, s := range servers {
			if err := upstream.check(s); err != nil {
				t.Error(err)
			}
		}
	})
}
