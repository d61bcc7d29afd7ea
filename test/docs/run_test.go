package docs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// step is a command of a block that is run, with the output that the page shows.
type step struct {
	at   string
	host string // of the lab, empty for the reader's machine
	line string
	want []string
	// from and to are the lines of the output in the page, from 0.
	from, to int
}

// steps are the commands of the blocks of a page that are run, in order.
func (p page) steps() (out []step) {
	for _, b := range p.blocks() {
		if !b.run {
			continue
		}
		for i, line := range b.lines {
			m := prompt.FindStringSubmatch(line)
			if m == nil {
				if len(out) > 0 {
					s := &out[len(out)-1]
					s.want, s.to = append(s.want, line), b.line+i
				}
				continue
			}
			n := b.line + i // of the line below, from 0
			out = append(out, step{at: b.at(i), host: strings.TrimSuffix(strings.TrimSuffix(m[1], "#"), "$"), line: m[2], from: n, to: n})
		}
	}
	return out
}

// TestRun runs the blocks that are marked <!-- run -->, those of a page one after the other, in a lab of their own, and
// compares the output with what the page shows. Numbers, ids, times and the order of lines may differ; a line ... stands
// for lines that the page leaves out. A page that does not make the lab itself finds one.
func TestRun(t *testing.T) {
	needLab(t)
	n := 0
	for _, p := range pages(t, false) {
		steps := p.steps()
		if len(steps) == 0 {
			continue
		}
		n += len(steps)
		t.Run(p.path, func(t *testing.T) { runPage(t, p, steps) })
	}
	if n < 20 {
		t.Errorf("only %d commands to run", n)
	}
}

func runPage(t *testing.T, p page, steps []step) {
	name := fmt.Sprintf("docs-%d", os.Getpid())
	t.Cleanup(func() { // also after a failure; a page that has taken it down leaves nothing to do
		_, _ = shell(context.Background(), "bin/weft lab down --name "+name)
	})
	if !strings.Contains(steps[0].line, "weft lab up") {
		if out, err := shell(t.Context(), "bin/weft lab up --name "+name); err != nil {
			t.Fatalf("lab up: %v\n%s", err, out)
		}
	}
	got := make([][]string, len(steps))
	for i, s := range steps {
		out, why := s.run(t.Context(), name)
		if got[i] = strings.Split(strings.TrimRight(out, "\n"), "\n"); out == "" {
			got[i] = nil
		}
		if why != "" && !*update {
			t.Fatalf("%s: %s: %s; it printed\n%s", s.at, s.line, why, out)
		}
	}
	if !*update {
		return
	}
	lines := slices.Clone(p.lines)
	for i := len(steps) - 1; i >= 0; i-- {
		lines = slices.Replace(lines, steps[i].from, steps[i].to, got[i]...)
	}
	if err := os.WriteFile(filepath.Join(root, p.path), []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// shell runs a line in the directory that has bin/weft, and returns what it printed on both streams.
func shell(ctx context.Context, line string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "WEFT_SOCKET=", "COLUMNS=120")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var labCommand = regexp.MustCompile(`weft lab (up|down|exec|status|logs)`)

// run runs one step in the lab called name. What another node has done may take a moment to arrive: a step that fails, or
// that looks at something that is not as the page shows it, is tried again for a while.
func (s step) run(ctx context.Context, name string) (out, why string) {
	line := labCommand.ReplaceAllString(s.line, "weft lab $1 --name "+name)
	if s.host != "" {
		line = fmt.Sprintf("bin/weft lab exec --name %s %s -- sh -c '%s'", name, s.host, strings.ReplaceAll(line, "'", `'\''`))
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		var err error
		out, err = shell(ctx, line)
		out = strings.NewReplacer(" --name "+name, "", "lab "+name, "lab default", "weft-lab/"+name, "weft-lab/default").Replace(out)
		refused := slices.ContainsFunc(s.want, func(l string) bool { return strings.HasPrefix(l, "weft: ") && !strings.HasPrefix(l, "weft: warning") })
		switch {
		case err != nil && !refused:
			why = err.Error()
		case err == nil && refused:
			return out, "it did not fail"
		default:
			why = missing(s.want, out)
			if why == "" || !s.looks() {
				return out, why
			}
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return out, why
		}
	}
}

// looks reports whether the step changes nothing, so that it may be run again.
func (s step) looks() bool {
	return regexp.MustCompile(`weft (status|plan|node (ls|inspect)|endpoint (ls|inspect)|network (ls|inspect)|lab status)|getent|kv get|health|ping`).MatchString(s.line) &&
		!strings.Contains(s.line, "--detach")
}

var masks = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`([0-9a-f]{2}:){5}[0-9a-f]{2}`), "MAC"},
	{regexp.MustCompile(`fe80::[0-9a-f:]+`), "LINKLOCAL"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "ID"},
	{regexp.MustCompile(`[A-Za-z0-9+/]{42,}={1,2}`), "KEY"},
	{regexp.MustCompile(`\b[0-9a-f]{8}\b`), "ID"},
	{regexp.MustCompile(`go1\.\S+ linux/\w+`), "GO"},
	{regexp.MustCompile(`\b(kernel|engine)\b`), "BACKEND"},
	{regexp.MustCompile(`\b(never|\d+[smhd] ago)`), "AGE"},
	{regexp.MustCompile(`\d+(\.\d+)? ([KMG]i)?B\b`), "SIZE"},
	{regexp.MustCompile(`\d+(\.\d+)*`), "0"},
	{regexp.MustCompile(`\s+`), " "},
}

// mask takes out of a line what differs from one run to the next.
func mask(line string) string {
	for _, m := range masks {
		line = m.pattern.ReplaceAllString(line, m.with)
	}
	return strings.TrimSpace(line)
}

// missing says which line of want is not in out. What the fences dropped depends on what the machine's own programs send.
func missing(want []string, out string) string {
	var have []string
	for line := range strings.Lines(out) {
		have = append(have, mask(line))
	}
	for _, w := range want {
		if w = mask(w); w != "" && w != "..." && !strings.HasPrefix(w, "dropped") && !slices.Contains(have, w) {
			return fmt.Sprintf("the line %q is not in its output", w)
		}
	}
	return ""
}
