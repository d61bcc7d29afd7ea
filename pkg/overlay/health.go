package overlay

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Health is what an endpoint's check says, as its node publishes it: on change only, never periodically.
type Health string

// The states of an endpoint. Others, of a later version, count as passing.
const (
	HealthNone     Health = ""         // it has no check
	HealthStarting Health = "starting" // its check has not passed yet
	HealthPassing  Health = "passing"
	HealthFailing  Health = "failing"
	// HealthDraining takes an endpoint's names away whatever else is there: its address goes soon.
	HealthDraining Health = "draining"
)

// Answered reports whether names lead to an endpoint in this state while others are there.
func (h Health) Answered() bool {
	return h != HealthStarting && h != HealthFailing && h != HealthDraining
}

func (h Health) validate() error {
	if len(h) > 20 || h != "" && !wordGrammar(string(h), "-") {
		return fmt.Errorf("health %.30q is not a word", string(h))
	}
	return nil
}

// Check says how an endpoint's health is found out, by its own node.
type Check struct {
	Kind CheckKind `json:"kind"`
	Port uint16    `json:"port,omitempty"` // of tcp and http
	Path string    `json:"path,omitempty"` // of http, with its slash
	// Command is run by sh -c in the endpoint's network namespace; it is well when that exits with 0.
	Command  string        `json:"command,omitempty"`
	Interval time.Duration `json:"interval"` // 200 ms to 1 h
	Timeout  time.Duration `json:"timeout"`  // of one try; at most Interval
}

// CheckKind is the way a check goes; empty for no check.
type CheckKind string

// The kinds of checks.
const (
	CheckTCP     CheckKind = "tcp"
	CheckHTTP    CheckKind = "http"
	CheckCommand CheckKind = "cmd"
)

// The times of a check that names none.
const (
	DefaultCheckInterval = 2 * time.Second
	DefaultCheckTimeout  = time.Second
)

// ParseCheck reads "tcp:8080", "http:8080/path", "cmd:COMMAND" and "none", with interval and timeout as durations or
// empty. The error is one line and says what to do.
func ParseCheck(spec, interval, timeout string) (Check, error) {
	kind, rest, _ := strings.Cut(spec, ":")
	c := Check{Kind: CheckKind(kind), Interval: DefaultCheckInterval}
	switch {
	case spec == "none" || spec == "":
		return Check{}, nil
	case kind == "tcp" || kind == "http":
		port, path, slash := strings.Cut(rest, "/")
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || slash && kind == "tcp" {
			return c, fmt.Errorf("check %q is not valid: use tcp:PORT or http:PORT/PATH", spec)
		}
		if c.Port = uint16(n); kind == "http" {
			c.Path = "/" + path
		}
	case kind == "cmd" && strings.TrimSpace(rest) != "":
		c.Command = rest
	default:
		return c, fmt.Errorf("check %q is not valid: use tcp:PORT, http:PORT/PATH, cmd:COMMAND or none", spec)
	}
	if strings.ContainsAny(c.Path, " \r\n\t") || len(rest) > 4096 {
		return c, fmt.Errorf("check %.60q is not valid: no space in the path, at most 4096 bytes", spec)
	}
	var err error
	if interval != "" {
		if c.Interval, err = time.ParseDuration(interval); err != nil || c.Interval < 200*time.Millisecond || c.Interval > time.Hour {
			return c, fmt.Errorf("check interval %q is not valid: use 200ms to 1h", interval)
		}
	}
	c.Timeout = min(DefaultCheckTimeout, c.Interval)
	if timeout != "" {
		if c.Timeout, err = time.ParseDuration(timeout); err != nil || c.Timeout <= 0 || c.Timeout > c.Interval {
			return c, fmt.Errorf("check timeout %q is not valid: use a duration up to the interval, %s", timeout, c.Interval)
		}
	}
	return c, nil
}

// String is the form that ParseCheck reads.
func (c Check) String() string {
	switch c.Kind {
	case "":
		return "none"
	case CheckCommand:
		return "cmd:" + c.Command
	}
	return fmt.Sprintf("%s:%d%s", c.Kind, c.Port, c.Path)
}

// ParsePort reads a named port: "name=http,port=8080,proto=tcp", where proto may be left out (tcp), or "http=8080" and
// "http=8080/udp" in short.
func ParsePort(s string) (Port, error) {
	p := Port{Proto: "tcp"}
	bad := fmt.Errorf("port %q is not valid: use name=http,port=8080,proto=tcp", s)
	number := func(v string) error {
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("port %q is not valid: %q is no port number", s, v)
		}
		p.Port = uint16(n)
		return nil
	}
	fields := strings.Split(s, ",")
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		switch {
		case !ok:
			return p, bad
		case key == "name":
			p.Name = strings.ToLower(value)
		case key == "port":
			if err := number(value); err != nil {
				return p, err
			}
		case key == "proto":
			p.Proto = strings.ToLower(value)
		case len(fields) == 1:
			n, proto, given := strings.Cut(value, "/")
			if err := number(n); err != nil {
				return p, err
			}
			if p.Name = strings.ToLower(key); given {
				p.Proto = strings.ToLower(proto)
			}
		default:
			return p, bad
		}
	}
	if p.Port == 0 || p.Name == "" {
		return p, bad
	}
	return p, checkPorts([]Port{p})
}

// CheckNames checks the aliases and ports that a person gave an endpoint.
func CheckNames(aliases []string, ports []Port) error {
	if max(len(aliases), len(ports)) > maxNames {
		return fmt.Errorf("more than %d aliases or ports: use fewer", maxNames)
	}
	for _, a := range aliases {
		if err := ValidateName(AliasName, a); err != nil {
			return err
		}
	}
	return checkPorts(ports)
}
