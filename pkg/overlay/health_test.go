package overlay

import (
	"testing"
	"time"
)

func TestParseCheck(t *testing.T) {
	for _, tc := range []struct {
		spec, interval, timeout string
		want                    Check
		ok                      bool
	}{
		{"none", "", "", Check{}, true},
		{"", "", "", Check{}, true},
		{"tcp:8080", "", "", Check{Kind: CheckTCP, Port: 8080, Interval: 2 * time.Second, Timeout: time.Second}, true},
		{"tcp:8080", "500ms", "", Check{Kind: CheckTCP, Port: 8080, Interval: 500 * time.Millisecond, Timeout: 500 * time.Millisecond}, true},
		{"http:80/healthz?x=1", "10s", "3s", Check{Kind: CheckHTTP, Port: 80, Path: "/healthz?x=1", Interval: 10 * time.Second, Timeout: 3 * time.Second}, true},
		{"http:80", "", "", Check{Kind: CheckHTTP, Port: 80, Path: "/", Interval: 2 * time.Second, Timeout: time.Second}, true},
		{"cmd:test -e /x", "", "", Check{Kind: CheckCommand, Command: "test -e /x", Interval: 2 * time.Second, Timeout: time.Second}, true},
		{spec: "tcp:0"}, {spec: "tcp:"}, {spec: "tcp:80/x"}, {spec: "cmd: "}, {spec: "udp:5"}, {spec: "http:80/a b"}, {spec: "tcp:70000"},
		{spec: "tcp:80", interval: "1ms"}, {spec: "tcp:80", interval: "x"}, {spec: "tcp:80", timeout: "3s"}, {spec: "tcp:80", timeout: "0s"},
	} {
		got, err := ParseCheck(tc.spec, tc.interval, tc.timeout)
		if (err == nil) != tc.ok || tc.ok && got != tc.want {
			t.Errorf("ParseCheck(%q, %q, %q) = %+v, %v", tc.spec, tc.interval, tc.timeout, got, err)
		}
		if tc.ok && tc.spec != "" && tc.spec != "http:80" && got.String() != tc.spec {
			t.Errorf("%q prints as %q", tc.spec, got)
		}
	}
}

func TestParsePort(t *testing.T) {
	for s, want := range map[string]Port{
		"name=http,port=8080,proto=tcp": {"http", 8080, "tcp"},
		"port=53,name=DNS,proto=UDP":    {"dns", 53, "udp"},
		"name=http,port=80":             {"http", 80, "tcp"},
		"http=80":                       {"http", 80, "tcp"},
		"dns=53/udp":                    {"dns", 53, "udp"},
	} {
		if got, err := ParsePort(s); err != nil || got != want {
			t.Errorf("ParsePort(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "http", "name=http", "port=80", "name=http,port=0", "http=80/sctp", "a=1,b=2", "name=a b,port=1", "8080:80"} {
		if got, err := ParsePort(s); err == nil {
			t.Errorf("ParsePort(%q) = %v", s, got)
		}
	}
}

func TestHealthAnswered(t *testing.T) {
	for h, want := range map[Health]bool{"": true, HealthPassing: true, HealthStarting: false, HealthFailing: false, HealthDraining: false, "later": true} {
		if h.Answered() != want {
			t.Errorf("%q answered: %v", h, !want)
		}
	}
}
