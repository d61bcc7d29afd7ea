package docs

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/cli.md and the output of the commands that are run anew")

// root of the module, from this package's directory, where tests run.
const root = "../.."

// work is a directory with bin/weft, built for this run, and bin/consul: what a reader has after `make build consul`. It
// lies outside /run, which the lab's hosts do not see, and everybody may read it.
var work string

func TestMain(m *testing.M) {
	flag.Parse()
	code := 1
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
	} else {
		code = m.Run()
	}
	if work != "" {
		_ = os.RemoveAll(work) // in the directory for temporary files
	}
	os.Exit(code)
}

func prepare() (err error) {
	if work, err = os.MkdirTemp("", "weft-docs-"); err != nil {
		return err
	}
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-ldflags", "-X main.version=dev", "-o", filepath.Join(work, "bin")+"/", "./cmd/weft")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build weft: %w\n%s", err, out)
	}
	consul, err := filepath.Abs(filepath.Join(root, "bin", "consul"))
	if err != nil {
		return err
	}
	if _, err := os.Stat(consul); err != nil {
		return nil // needLab says so
	}
	return os.Symlink(consul, filepath.Join(work, "bin", "consul"))
}

// needLab skips a test that makes a lab, where none can be made.
func needLab(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	if _, err := os.Stat(filepath.Join(work, "bin", "consul")); err != nil {
		t.Skip("needs bin/consul: run make consul")
	}
	for tool, from := range map[string]string{"ip": "iproute2", "ping": "iputils-ping"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: install %s", tool, from)
		}
	}
}

// page is one document.
type page struct {
	path  string // relative to the root
	text  string
	lines []string
}

// pages are all documents of the tree; generated says whether docs/cli.md is among them, whose text is weft's own.
func pages(t *testing.T, generated bool) []page {
	t.Helper()
	var out []page
	for _, pattern := range []string{"*.md", "docs/*.md", "deploy/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			rel := strings.TrimPrefix(filepath.ToSlash(name), root+"/")
			if rel == cliPage && !generated {
				continue
			}
			out = append(out, open(t, rel))
		}
	}
	if len(out) < 8 {
		t.Fatalf("only %d documents found", len(out))
	}
	return out
}

func open(t *testing.T, rel string) page {
	t.Helper()
	return page{rel, read(t, rel), strings.Split(read(t, rel), "\n")}
}

func read(t *testing.T, rel string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, rel))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// block is one fenced block of a page.
type block struct {
	page  string
	line  int // of its first line of text, from 1
	lang  string
	run   bool // the line before it is <!-- run -->
	lines []string
}

func (b block) at(i int) string { return fmt.Sprintf("%s:%d", b.page, b.line+i) }

func (p page) blocks() []block {
	var out []block
	for i := 0; i < len(p.lines); i++ {
		lang, ok := strings.CutPrefix(p.lines[i], "```")
		if !ok {
			continue
		}
		b := block{page: p.path, line: i + 2, lang: lang, run: i > 0 && p.lines[i-1] == "<!-- run -->"}
		for i++; i < len(p.lines) && p.lines[i] != "```"; i++ {
			b.lines = append(b.lines, p.lines[i])
		}
		out = append(out, b)
	}
	return out
}
