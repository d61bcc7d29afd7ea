package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// isSection reports whether keys stand below key; "" is the whole file.
func isSection(key string) bool { return len(keysOf(key)) > 0 }

// keysOf lists what may stand directly in a section, in the order of settings.
func keysOf(section string) []string {
	start := ""
	if section != "" {
		start = section + "."
	}
	var names []string
	for _, s := range settings {
		rest, ok := strings.CutPrefix(s.name, start)
		if !ok || s.flagOnly {
			continue
		}
		name, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// put stores a value under a dotted key in nested maps, as viper keeps them.
func put(tree map[string]any, key string, value any) {
	section, rest, nested := strings.Cut(key, ".")
	if !nested {
		tree[key] = value
		return
	}
	below, ok := tree[section].(map[string]any)
	if !ok {
		below = map[string]any{}
		tree[section] = below
	}
	put(below, rest, value)
}

func has(tree map[string]any, key string) bool {
	section, rest, nested := strings.Cut(key, ".")
	if !nested {
		return tree[key] != nil
	}
	below, ok := tree[section].(map[string]any)
	return ok && has(below, rest)
}

// clip shortens a key that no person wrote.
func clip(key string) string {
	if len(key) <= maxWord {
		return key
	}
	return strings.ToValidUTF8(key[:maxWord], "") + "…"
}

// leaf is a value in a file that is not a section.
type leaf struct {
	key   string
	value any
}

// flatten lists a file's values by dotted key, sorted. Below a known key nothing is a section.
func flatten(key string, value any, depth int) []leaf {
	if mixed, ok := value.(map[any]any); ok {
		value = textKeys(mixed)
	}
	section, ok := value.(map[string]any)
	if !ok || byName[key] != nil || depth > maxDepth || (len(section) == 0 && !isSection(key)) {
		return []leaf{{key, value}}
	}
	var leaves []leaf
	for _, name := range slices.Sorted(maps.Keys(section)) {
		below := name
		if key != "" {
			below = key + "." + name
		}
		leaves = append(leaves, flatten(below, section[name], depth+1)...)
	}
	return leaves
}

// known finds a leaf's setting, or says what is wrong with its key. Nothing after a key (YAML's null) is as good as no key.
func (l *loader) known(source Source, leaf leaf) *setting {
	s := byName[leaf.key]
	switch {
	case s != nil && s.flagOnly:
		l.fail(source, leaf.key, "is only a flag: weft agent --"+s.flag())
	case s != nil && leaf.value != nil:
		return s
	case s != nil:
	case isSection(leaf.key) && leaf.value == nil:
	case isSection(leaf.key):
		l.fail(source, leaf.key, fmt.Sprintf("want a section with %s, not %s", orList(keysOf(leaf.key)), typeName(leaf.value)))
	default:
		l.fail(source, clip(leaf.key), unknownKey(leaf.key))
	}
	return nil
}

func unknownKey(key string) string {
	if near := nearestKey(key); near != "" {
		return "unknown key; did you mean " + near + "?"
	}
	if parent := strings.TrimSuffix(strings.TrimSuffix(key, lastPart(key)), "."); byName[parent] != nil {
		return "unknown key; " + parent + " has no keys below it"
	} else if parent != "" && isSection(parent) {
		return "unknown key; " + parent + " has " + strings.Join(keysOf(parent), ", ")
	}
	return "unknown key; the keys are " + strings.Join(keysOf(""), ", ")
}
