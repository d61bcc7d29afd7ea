package config

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// shape is how a value is written in a file.
type shape string

const (
	text   shape = "text"
	number shape = "a number"
	truth  shape = "true or false"
)

// setting is one key: everything that files, environment, flags, docs and prints need to know about it.
type setting struct {
	name   string
	help   string // what it is, for the flag's help and the docs
	want   string // what a value is, after "want"
	shape  shape
	list   bool
	choice []string // the allowed values, when they are few
	preset []string // the default
	// lookup names where a default that is not constant comes from; presetDoc describes the default in the docs.
	lookup, presetDoc string
	reload            bool // can change while the agent runs
	secret            bool // has no flag, and its value is never in a message
	flagOnly          bool
	store             func(*Config, []string) error
	fetch             func(*Config) []string
}

// env is the variable that sets the key.
func (s *setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.name, ".", "_"))
}

// flag is the flag that sets the key, without dashes; empty when there is none.
func (s *setting) flag() string {
	if s.secret {
		return ""
	}
	return strings.NewReplacer(".", "-", "_", "-").Replace(s.name)
}

// form is the type a file must use.
func (s *setting) form() string {
	if s.list {
		return "a list of " + s.want
	}
	return s.want
}

// split turns the text of a variable or a flag into the key's values.
func (s *setting) split(value string) []string {
	if !s.list {
		return []string{value}
	}
	var values []string
	for _, v := range strings.Split(value, ",") {
		if v = strings.TrimSpace(v); v != "" {
			values = append(values, v)
		}
	}
	return values
}

// fromFile turns a value that a file's parser returned into texts, insisting on the right type.
func (s *setting) fromFile(value any) ([]string, error) {
	if !s.list {
		one, err := s.scalar(value)
		return []string{one}, err
	}
	items, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("want %s, not %s", s.form(), typeName(value))
	}
	values := make([]string, 0, len(items))
	for i, item := range items {
		one, err := s.scalar(item)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i+1, err)
		}
		values = append(values, one)
	}
	return values, nil
}

func (s *setting) scalar(value any) (string, error) {
	var out string
	ok := false
	switch s.shape {
	case text:
		out, ok = value.(string)
	case truth:
		var b bool
		if b, ok = value.(bool); ok {
			out = strconv.FormatBool(b)
		}
	case number:
		out, ok = numberText(value)
	}
	if ok {
		return out, nil
	}
	hint := ""
	if kind := typeName(value); s.shape == text && (kind == "a number" || kind == "true or false") && len(s.choice) == 0 && s.want == string(text) {
		hint = " (put it in quotes)"
	}
	return "", fmt.Errorf("want %s, not %s%s", s.want, typeName(value), hint)
}

// check parses texts without keeping the result.
func (s *setting) check(values []string) error { return s.store(new(Config), values) }

// numberText prints the numbers that the four parsers return; whether it is whole and in range is the key's own affair.
func numberText(value any) (string, bool) {
	switch n := value.(type) {
	case int:
		return strconv.Itoa(n), true
	case int64:
		return strconv.FormatInt(n, 10), true
	case uint64:
		return strconv.FormatUint(n, 10), true
	case json.Number:
		return n.String(), true
	case float64:
		if n == math.Trunc(n) && math.Abs(n) < 1<<53 {
			return strconv.FormatInt(int64(n), 10), true
		}
		return strconv.FormatFloat(n, 'g', -1, 64), true
	}
	return "", false
}

// typeName names the type of a value in a file the way a person would.
func typeName(value any) string {
	switch value.(type) {
	case nil:
		return "nothing"
	case string:
		return "text"
	case bool:
		return "true or false"
	case int, int64, uint64, float64, json.Number:
		return "a number"
	case []any:
		return "a list"
	case map[string]any, map[any]any:
		return "a section"
	default:
		return "a date" // the only other thing YAML and TOML have
	}
}
