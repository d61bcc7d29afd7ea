package arch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/hcl/parser"
	"github.com/pelletier/go-toml/v2"
)

// TestDeployFiles parses every file of deploy/: an example that does not work is worse than none. What they mean is
// tested beside the code that reads them: deploy/config by pkg/config.
func TestDeployFiles(t *testing.T) {
	n := 0
	for _, p := range allFiles(t) {
		if !strings.HasPrefix(p, "deploy/") || strings.HasPrefix(p, "deploy/config/") {
			continue
		}
		n++
		text, err := os.ReadFile(filepath.Join(root, p))
		if err != nil {
			t.Fatal(err)
		}
		if err := parseExample(path.Ext(p), text); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	if n == 0 {
		t.Error("deploy/ has no files to parse")
	}
}

// parseExample checks a file, or a block of a document, by its kind.
func parseExample(kind string, text []byte) error {
	switch kind {
	case ".md":
		return nil // see TestDocs
	case ".json", ".conflist", ".conf":
		if !json.Valid(text) {
			return fmt.Errorf("is not JSON")
		}
		return nil
	case ".hcl", ".nomad":
		_, err := parser.Parse(text)
		return err
	case ".toml":
		var v map[string]any
		return toml.Unmarshal(text, &v)
	case ".sh":
		return parseShell(text)
	case ".service", ".socket", ".timer", ".mount", ".slice":
		_, err := parseUnit(text)
		return err
	}
	return fmt.Errorf("nothing in test/arch parses a %s file: add it", kind)
}

// parseShell asks the shell for the syntax only.
func parseShell(text []byte) error {
	cmd := exec.Command("sh", "-n")
	cmd.Stdin = bytes.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// unit is a systemd unit: section, key, values.
type unit map[string]map[string][]string

// parseUnit reads the format of systemd.syntax(7), without continuation lines: none of ours needs one.
func parseUnit(text []byte) (unit, error) {
	u, section := unit{}, ""
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		key, value, assigns := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[' && line[len(line)-1] == ']':
			section = line[1 : len(line)-1]
			u[section] = map[string][]string{}
		case !assigns || section == "" || strings.ContainsAny(key, " \t"):
			return nil, fmt.Errorf("line %d is neither a section nor an assignment in one: %s", i+1, line)
		case strings.HasSuffix(line, `\`):
			return nil, fmt.Errorf("line %d goes on on the next", i+1)
		default:
			u[section][key] = append(u[section][key], value)
		}
	}
	return u, nil
}

// TestUnit: what the agent's unit must and must not say for the data path to outlive the agent.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/systemd/weft.service"))
	if err != nil {
		t.Fatal(err)
	}
	u, err := parseUnit(text)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"Type": "notify", "KillMode": "process"} {
		if got := strings.Join(u["Service"][key], " "); got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}
	if start := strings.Join(u["Service"]["ExecStart"], " "); !regexp.MustCompile(`^/\S*/weft agent( |$)`).MatchString(start) {
		t.Errorf("ExecStart=%s", start)
	}
	if len(u["Install"]["WantedBy"]) == 0 {
		t.Error("the unit cannot be enabled")
	}
	// Each of these gives the service a mount namespace of its own: named namespaces would end with the agent.
	for _, key := range strings.Fields(`PrivateTmp PrivateMounts PrivateDevices PrivateNetwork PrivateUsers ProtectSystem ProtectHome ProtectKernelTunables
		ProtectKernelModules ProtectControlGroups ProtectProc ReadWritePaths ReadOnlyPaths InaccessiblePaths BindPaths BindReadOnlyPaths
		TemporaryFileSystem MountFlags RootDirectory RootImage DynamicUser MountAPIVFS ProtectKernelLogs ProtectHostname ProtectClock`) {
		if v, ok := u["Service"][key]; ok {
			t.Errorf("%s=%s: it puts the agent into a mount namespace of its own", key, v)
		}
	}
}

var (
	fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")
	link  = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)\s]*)?\)`)
)

// TestDocs: the blocks of a document that say what they are written in parse, and its links to files lead somewhere.
func TestDocs(t *testing.T) {
	for _, p := range allFiles(t) {
		if path.Ext(p) != ".md" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, p))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fence.FindAllSubmatch(text, -1) {
			kind := "." + string(m[1])
			if slices.Contains([]string{".json", ".hcl", ".sh"}, kind) {
				if err := parseExample(kind, m[2]); err != nil {
					t.Errorf("%s: a block of %s: %v:\n%s", p, m[1], err, m[2])
				}
			}
		}
		if bytes.Count(text, []byte("\n```"))%2 != 0 && !bytes.HasPrefix(text, []byte("```")) {
			t.Errorf("%s: a block is opened and not closed", p)
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			target := string(m[1])
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, path.Dir(p), target)); err != nil {
				t.Errorf("%s: link to %s: %v", p, target, err)
			}
		}
	}
}

// TestShell: every script parses.
func TestShell(t *testing.T) {
	for _, p := range allFiles(t) {
		text, err := os.ReadFile(filepath.Join(root, p))
		if err != nil {
			t.Fatal(err)
		}
		if path.Ext(p) != ".sh" && !bytes.HasPrefix(text, []byte("#!/bin/sh\n")) {
			continue
		}
		if err := parseShell(text); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestParsers(t *testing.T) {
	for kind, texts := range map[string][2]string{ // one that parses and one that does not
		".json":    {`{"a": [1]}`, `{"a": 1,}`},
		".hcl":     {`key "a" { policy = "read" }`, `key "a" {`},
		".sh":      {"if true; then echo a; fi", "if true; then"},
		".service": {"# c\n[Unit]\nDescription=a = b\n", "Description=a\n"},
		".toml":    {"a = 1", "a = "},
		".odd":     {"", ""},
	} {
		if err := parseExample(kind, []byte(texts[0])); (err != nil) != (kind == ".odd") {
			t.Errorf("%s: %v", kind, err)
		}
		if err := parseExample(kind, []byte(texts[1])); err == nil {
			t.Errorf("%s: %q parses", kind, texts[1])
		}
	}
}
