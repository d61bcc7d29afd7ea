package config

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestFlags(t *testing.T) {
	fs := flags(t)
	for _, s := range settings {
		f := fs.Lookup(s.flag())
		switch {
		case s.secret && f != nil:
			t.Errorf("%s has a flag", s.name)
		case !s.secret && f == nil:
			t.Errorf("%s has no flag", s.name)
		}
	}
	usage := fs.FlagUsages()
	for _, want := range []string{
		"--wireguard-ports list", "--dev ", "--wireguard-keepalive duration", "(default 25s)", "(default: the host name)", "--consul-token-file string",
	} {
		if !strings.Contains(usage, want) {
			t.Errorf("usage lacks %q:\n%s", want, usage)
		}
	}
}

func TestFlagErrors(t *testing.T) {
	tests := []struct{ name, arg, want string }{
		{"value", "--log-level=loud", `invalid argument "loud" for "--log-level" flag: "loud" is not debug, info, warn or error`},
		{"list", "--pools=10.0.0.0/8,x", `invalid argument "10.0.0.0/8,x" for "--pools" flag: "x" is not an IPv4 prefix as "10.0.0.0/8"`},
		{"truth", "--dev=maybe", `invalid argument "maybe" for "--dev" flag: "maybe" is not true or false`},
		{"token", "--consul-token=x", "unknown flag: --consul-token"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
			fs.SetOutput(io.Discard)
			RegisterFlags(fs)
			err := fs.Parse([]string{tt.arg})
			diff(t, []string{tt.want}, lines(err, "/nowhere"))
		})
	}
}

// TestFlagRules: what flags say together is judged by Load.
func TestFlagRules(t *testing.T) {
	o := options(t.TempDir())
	o.Flags = flags(t, "--wireguard-ports=51820", "--vxlan-port=51820")
	_, err := Load(o)
	diff(t, []string{"--wireguard-ports: wireguard.ports: want exactly 2 port numbers, not 1: a new key generation listens beside the old one"}, lines(err, "/nowhere"))
}
