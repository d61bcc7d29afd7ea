package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// prompt begins a command in a console block: $ is the reader's machine, n1# a host of the lab.
var prompt = regexp.MustCompile(`^(\$|[a-z0-9]+#) (.*)$`)

// commands are the command lines of a block, with those that a backslash continues made one.
func (b block) commands() (out []string, at []int) {
	for i := 0; i < len(b.lines); i++ {
		line := b.lines[i]
		switch b.lang {
		case "console":
			m := prompt.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			line = m[2]
		case "sh":
		default:
			return nil, nil
		}
		first := i
		for strings.HasSuffix(line, `\`) && i+1 < len(b.lines) {
			i++
			line = strings.TrimSuffix(line, `\`) + " " + strings.TrimSpace(b.lines[i])
		}
		out, at = append(out, line), append(at, first)
	}
	return out, at
}

// weftLines are the command lines of weft in a line of shell, those inside `weft lab exec` too, without "weft".
func weftLines(line string) (out [][]string) {
	for _, part := range regexp.MustCompile(`\|\||&&|[|;&<>]|\$?\(|\)`).Split(line, -1) {
		words := strings.Fields(strings.SplitN(part, " #", 2)[0])
		for len(words) > 0 && (words[0] == "sudo" || words[0] == "then" || words[0] == "do" || words[0] == "source" || strings.Contains(words[0], "=")) {
			words = words[1:]
		}
		for len(words) > 0 && (words[0] == "weft" || strings.HasSuffix(words[0], "/weft")) {
			out = append(out, words[1:])
			i := slices.Index(words, "--")
			if i < 0 {
				break
			}
			words = words[i+1:] // what it runs may be weft again
		}
	}
	return out
}

// weft runs a command line that must not do anything: as nobody, so that no agent and no lab lets it, and without a PATH.
func weft(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(work, "bin", "weft"), args...)
	cmd.Dir, cmd.Env = "/", []string{"WEFT_SOCKET="}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatalf("weft %v: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// TestBlocks parses every command line of weft in a block: exit code 2 is a command line that cannot be meant.
func TestBlocks(t *testing.T) {
	n := 0
	for _, p := range pages(t, false) {
		for _, b := range p.blocks() {
			lines, at := b.commands()
			for i, line := range lines {
				for _, words := range weftLines(line) {
					n++
					if code, out := weft(t, unquote(words)...); code == 2 {
						t.Errorf("%s: weft %s: %s", b.at(at[i]), strings.Join(words, " "), out)
					}
				}
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d command lines found", n)
	}
}

// unquote takes quotes off words; those that quotes join stay apart, which only matters to the program that weft runs.
func unquote(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = strings.Trim(w, `'"`)
	}
	return out
}

var span = regexp.MustCompile("`(weft [^`]+)`")

// TestSpans checks the commands that stand in a sentence, which may lack arguments: the command and its flags exist.
func TestSpans(t *testing.T) {
	n := 0
	for _, p := range pages(t, false) {
		for i, line := range p.lines {
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				words := strings.Fields(m[1])[1:]
				if strings.ContainsAny(m[1], "[|") || slices.Contains(words, "...") {
					continue // a pattern for people
				}
				n++
				if why := knows(t, unquote(words)); why != "" {
					t.Errorf("%s:%d: `%s`: %s", p.path, i+1, m[1], why)
				}
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d commands found", n)
	}
}

var commandWord = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)

// knows asks for the help of a command line, and says what is wrong with it.
func knows(t *testing.T, words []string) string {
	t.Helper()
	if i := slices.Index(words, "--"); i >= 0 {
		words = words[:i]
	}
	if words[0] == "help" {
		return "" // its arguments are commands; TestCLI walks those
	}
	code, out := weft(t, append(slices.Clone(words), "--help")...)
	_, usage, found := strings.Cut(out, "Usage: weft ")
	if code != 0 || !found {
		return out
	}
	usage, _, _ = strings.Cut(usage, "\n")
	path := strings.Fields(usage)
	for i, w := range words {
		if !commandWord.MatchString(w) {
			break
		}
		if i < len(path) && path[i] == w {
			continue
		}
		if slices.Contains(path[min(i, len(path)):], "COMMAND") {
			return "no command " + w
		}
		break // an argument
	}
	return ""
}

// TestMakeTargets: each target that a document names is in the Makefile.
func TestMakeTargets(t *testing.T) {
	makefile := read(t, "Makefile")
	inSpan := regexp.MustCompile("`make ([a-z-]+)")
	for _, p := range pages(t, true) {
		var named []string
		for _, m := range inSpan.FindAllStringSubmatch(p.text, -1) {
			named = append(named, m[1])
		}
		for _, b := range p.blocks() {
			lines, _ := b.commands()
			for _, line := range lines {
				words := strings.Fields(strings.SplitN(line, "#", 2)[0])
				if len(words) > 1 && words[0] == "make" {
					named = append(named, slices.DeleteFunc(words[1:], func(w string) bool { return strings.Contains(w, "=") })...)
				}
			}
		}
		for _, target := range named {
			if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(target) + `:`).MatchString(makefile) {
				t.Errorf("%s: make %s: the Makefile has no such target", p.path, target)
			}
		}
	}
}

// TestCommandsFound: the checks above find what they look for.
func TestCommandsFound(t *testing.T) {
	for line, want := range map[string]string{
		"sudo bin/weft lab exec n1 -- weft run my-app -- ping web | tail -1": "lab exec n1 -- weft run my-app -- ping web; run my-app -- ping web",
		"X=1 weft status --check >/dev/null || echo look":                    "status --check",
		"source <(weft completion bash)":                                     "completion bash",
		"weft attach my-app --pid $(pidof x)":                                "attach my-app --pid",
		"echo weft":                                                          "",
	} {
		var got []string
		for _, words := range weftLines(line) {
			got = append(got, strings.Join(words, " "))
		}
		if strings.Join(got, "; ") != want {
			t.Errorf("%s: found %q, want %q", line, got, want)
		}
	}
	for words, good := range map[string]bool{
		"network rm": true, "network create my-app --encrypted": true, "run web --detach -- true": true, "leave": true,
		"netwrok ls": false, "network remove x": false, "network create x --secret": false, "lab sideways": false,
	} {
		if why := knows(t, strings.Fields(words)); (why == "") != good {
			t.Errorf("weft %s: %q", words, why)
		}
	}
	if code, _ := weft(t, "network", "create"); code != 2 {
		t.Errorf("a missing argument gives exit code %d, want 2", code)
	}
}
