package config

import (
	"encoding/json"
	"slices"
	"strings"
)

// Change is one key whose effective value differs. Old and New are for the log; secrets are redacted in them.
type Change struct {
	Key      string
	Old, New string
}

// Diff compares two configurations, in the order of the keys: what a running agent can take over, and what needs a restart.
func Diff(old, new Config) (reloadable, restart []Change) {
	for _, s := range settings {
		if !s.differ(&old, &new) {
			continue
		}
		change := Change{s.name, strings.Join(s.fetch(&old), ", "), strings.Join(s.fetch(&new), ", ")}
		if s.reload {
			reloadable = append(reloadable, change)
		} else {
			restart = append(restart, change)
		}
	}
	return reloadable, restart
}

func (s *setting) differ(old, new *Config) bool {
	if s.secret { // consul.token is the only one; its text form is redacted
		return !old.Consul.Token.Equal(new.Consul.Token)
	}
	return !slices.Equal(s.fetch(old), s.fetch(new))
}

// Setting is one effective value, for a person to read. A secret is redacted.
type Setting struct {
	Key string
	// Text is the value, a list separated by ", ".
	Text string
	// Value is the value as JSON: text, number, true or false, or a list of them.
	Value  any
	Source Source
}

// Settings lists all keys with their effective values, in the order of the docs.
func (l *Loaded) Settings() []Setting {
	list := make([]Setting, 0, len(settings))
	for _, s := range settings {
		values := s.fetch(&l.Config)
		list = append(list, Setting{Key: s.name, Text: strings.Join(values, ", "), Value: s.json(values), Source: l.Sources[s.name]})
	}
	return list
}

func (s *setting) json(values []string) any {
	scalar := func(v string) any {
		switch s.shape {
		case truth:
			return v == "true"
		case number:
			return json.Number(v)
		default:
			return v
		}
	}
	if !s.list {
		return scalar(strings.Join(values, ","))
	}
	list := make([]any, 0, len(values))
	for _, v := range values {
		list = append(list, scalar(v))
	}
	return list
}
