package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kind is a type of value: what it is called, and how it is read and printed. parse's errors complete `"value" ...`.
type kind[T any] struct {
	want   string
	shape  shape
	choice []string
	parse  func(string) (T, error)
	show   func(T) string
}

// one makes the setting of a field that holds one value.
func one[T any](name string, k kind[T], field func(*Config) *T, help string, preset ...string) *setting {
	s := &setting{name: name, help: help, want: k.want, shape: k.shape, choice: k.choice, preset: preset}
	s.store = func(c *Config, values []string) error {
		v, err := k.value(strings.Join(values, ","), s.secret)
		if err != nil {
			return err
		}
		*field(c) = v
		return nil
	}
	s.fetch = func(c *Config) []string { return []string{k.show(*field(c))} }
	return s
}

// many makes the setting of a field that holds a list.
func many[T any](name string, k kind[T], field func(*Config) *[]T, help string, preset ...string) *setting {
	s := &setting{name: name, help: help, want: k.want, shape: k.shape, list: true, preset: preset}
	s.store = func(c *Config, values []string) error {
		list := make([]T, 0, len(values))
		for _, value := range values {
			v, err := k.value(value, s.secret)
			if err != nil {
				return err
			}
			list = append(list, v)
		}
		*field(c) = list
		return nil
	}
	s.fetch = func(c *Config) []string {
		var values []string
		for _, v := range *field(c) {
			values = append(values, k.show(v))
		}
		return values
	}
	return s
}

func (k kind[T]) value(s string, secret bool) (T, error) {
	v, err := k.parse(s)
	if err == nil {
		return v, nil
	}
	if secret {
		return v, errors.New("the value " + err.Error())
	}
	return v, fmt.Errorf("%q %w", s, err)
}

func same(s string) string { return s }

// checked makes a kind of text from a check.
func checked(want string, check func(string) error) kind[string] {
	return kind[string]{want: want, shape: text, show: same, parse: func(s string) (string, error) { return s, check(s) }}
}

// oneOf makes a kind of text that has few values.
func oneOf(choices ...string) kind[string] {
	k := checked(orList(choices), func(s string) error {
		if slices.Contains(choices, s) {
			return nil
		}
		hint := ""
		if near := nearest(s, choices); near != "" {
			hint = "; did you mean " + near + "?"
		}
		return fmt.Errorf("is not %s%s", orList(choices), hint)
	})
	k.choice = choices
	return k
}

// also accepts one more value, which no list or hint shows.
func (k kind[T]) also(hidden string) kind[T] {
	parse := k.parse
	k.parse = func(s string) (T, error) {
		if v, ok := any(hidden).(T); ok && s == hidden {
			return v, nil
		}
		return parse(s)
	}
	return k
}

var (
	// absolute also takes the empty text, for files that are optional.
	absolute = checked("an absolute path", func(s string) error {
		if s != "" && !filepath.IsAbs(s) {
			return errors.New("is not an absolute path")
		}
		return nil
	})

	required = checked("an absolute path", func(s string) error {
		if !filepath.IsAbs(s) {
			return errors.New("is not an absolute path")
		}
		return nil
	})

	secret = kind[Secret]{want: "text", shape: text, show: Secret.String, parse: func(s string) (Secret, error) {
		if strings.TrimSpace(s) != s || strings.ContainsAny(s, "\r\n") {
			return Secret{}, errors.New("has space at its ends or line ends in it")
		}
		return NewSecret(s), nil
	}}

	// identity is an Ed25519 public key in its one base64 form.
	identity = checked("public keys", func(s string) error {
		if b, err := base64.StdEncoding.Strict().DecodeString(s); err != nil || len(b) != 32 || len(s) != 44 {
			return errors.New("is not a public key (44 characters of base64, as weft trust init prints it)")
		}
		return nil
	})

	boolean = kind[bool]{want: "true or false", shape: truth, show: strconv.FormatBool, parse: func(s string) (bool, error) {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return false, errors.New("is not true or false")
		}
		return b, nil
	}}

	port = kind[uint16]{
		want: "port numbers", shape: number,
		show: func(p uint16) string { return strconv.Itoa(int(p)) },
		parse: func(s string) (uint16, error) {
			p, err := strconv.ParseUint(s, 10, 16)
			if err != nil || p == 0 {
				return 0, errors.New("is not a port number from 1 to 65535")
			}
			return uint16(p), nil
		},
	}

	level = kind[slog.Level]{
		want: "debug, info, warn or error", shape: text, choice: []string{"debug", "info", "warn", "error"},
		show: func(l slog.Level) string { return strings.ToLower(l.String()) },
		parse: func(s string) (slog.Level, error) {
			// Not UnmarshalText alone: it also takes "INFO+2".
			if _, err := oneOf("debug", "info", "warn", "error").parse(s); err != nil {
				return 0, err
			}
			var l slog.Level
			return l, l.UnmarshalText([]byte(s))
		},
	}
)

// whole is a number with bounds.
func whole(low, high int) kind[int] {
	want := fmt.Sprintf("a whole number from %d to %d", low, high)
	return kind[int]{want: want, shape: number, show: strconv.Itoa, parse: func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < low || n > high {
			return 0, errors.New("is not " + want)
		}
		return n, nil
	}}
}

// span is a duration from 0 to high in multiples of unit.
func span(unit, high time.Duration) kind[time.Duration] {
	return kind[time.Duration]{want: `a duration as "25s"`, shape: text, show: time.Duration.String, parse: func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			return 0, errors.New(`is not a duration as "25s" or "1m30s"`)
		case d < 0 || d > high:
			return 0, fmt.Errorf("is not between 0s and %s", high)
		case d%unit != 0:
			return 0, fmt.Errorf("is not a multiple of %s", unit)
		}
		return d, nil
	}}
}

// prefix is an IPv4 network; the overlay's own addresses are IPv4.
func prefix(want string) kind[netip.Prefix] {
	return kind[netip.Prefix]{want: want, shape: text, show: netip.Prefix.String, parse: func(s string) (netip.Prefix, error) {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil || !p.Addr().Is4():
			return p, errors.New(`is not an IPv4 prefix as "10.0.0.0/8"`)
		case p != p.Masked():
			return p, fmt.Errorf("has host bits set; did you mean %s?", p.Masked())
		case p.Bits() > 30:
			return p, errors.New("is too small: at most /30")
		}
		return p, nil
	}}
}
