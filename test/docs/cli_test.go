package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const cliPage = "docs/cli.md"

// cliHead is what stands above the commands.
const cliHead = `# Commands

<!-- written by: go test ./test/docs -run TestCLI -update -->

` + "`weft agent` is the daemon of a node; all other commands but `config`, `lab`, `completion` and `version` ask the agent of this\n" +
	"host over its unix socket, and need root. Exit codes: 0 done, 1 failed (one line on standard error says what to do), 2 the\n" +
	"command line is wrong; `run`, `exec` and `lab exec` give the code of the program they ran, 128+n after signal n.\n" +
	"`weft help COMMAND` prints the same on the terminal, `weft help --full COMMAND` with every flag.\n"

var commandsList = regexp.MustCompile(`(?ms)^Commands:\n(.*?)(^$|\z)`)

// hidden commands that people use all the same.
var hidden = []string{"plan"}

// TestCLI keeps docs/cli.md in step with the commands; -update writes it.
func TestCLI(t *testing.T) {
	var b strings.Builder
	b.WriteString(cliHead)
	n := 0
	var walk func(path []string)
	walk = func(path []string) {
		code, out := weft(t, append([]string{"help", "--full"}, path...)...)
		if code != 0 {
			t.Fatalf("weft help --full %v: %s", path, out)
		}
		if len(path) > 0 {
			n++
			fmt.Fprintf(&b, "\n## weft %s\n\n```text\n%s\n```\n", strings.Join(path, " "), strings.TrimSpace(out))
		}
		m := commandsList.FindStringSubmatch(out)
		if m == nil {
			return
		}
		var names []string
		for line := range strings.Lines(m[1]) {
			names = append(names, strings.Fields(line)[0])
		}
		if len(path) == 0 {
			names = append(names, hidden...)
		}
		for _, name := range names {
			walk(append(append([]string{}, path...), name))
		}
	}
	walk(nil)
	if n < 20 {
		t.Fatalf("only %d commands found", n)
	}
	if *update {
		if err := os.WriteFile(filepath.Join(root, cliPage), []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(read(t, cliPage), b.String()); diff != "" {
		t.Errorf("%s (-want +got), go test ./test/docs -run TestCLI -update writes it:\n%s", cliPage, diff)
	}
}
