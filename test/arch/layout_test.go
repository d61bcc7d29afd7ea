package arch

import (
	"bytes"
	"go/ast"
	"go/format"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// top is what may lie in the root: a newcomer reads this list first.
var top = strings.Fields(`.ci .git .github .gitignore .golangci.yml CHANGELOG.md CONTRIBUTING.md LICENSE Makefile README.md SECURITY.md
	bin cmd consul deploy dns docs go.mod go.sum keys pkg staticcheck.conf test`)

func TestTopLevel(t *testing.T) {
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(top, e.Name()) {
			t.Errorf("%s is in the root: put it where it belongs, or on the list in test/arch", e.Name())
		}
	}
}

// maxLines is where a file has more than one subject.
const maxLines = 500

func TestFileLength(t *testing.T) {
	for _, s := range allSources(t) {
		if n := bytes.Count(s.text, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines: split it by subject, at most %d", s.path, n, maxLines)
		}
	}
}

func TestGofmt(t *testing.T) {
	for _, s := range allSources(t) {
		want, err := format.Source(s.text)
		if err != nil {
			t.Errorf("%s: %v", s.path, err)
		} else if !bytes.Equal(want, s.text) {
			t.Errorf("%s is not as gofmt writes it: run gofmt -w %s", s.path, s.path)
		}
	}
}

// vague package names say nothing about what is inside, and collect what belongs elsewhere.
var vague = []string{"util", "utils", "common", "helpers", "helper", "types", "models", "misc", "base", "lib"}

func TestPackageNames(t *testing.T) {
	for _, s := range allSources(t) {
		name := strings.TrimSuffix(s.file.Name.Name, "_test")
		if slices.Contains(vague, name) || slices.Contains(vague, path.Base(s.dir)) {
			t.Errorf("%s: a package is named after what it provides, not %s", s.path, name)
		}
		if name != path.Base(s.dir) && name != "main" {
			t.Errorf("%s: package %s lies in a directory of another name", s.path, name)
		}
	}
}

// TestPackageDocs: each package says in one place what it is. In doc.go, where one looks for it; a command may say it in
// main.go, and a package for tests in its only file.
func TestPackageDocs(t *testing.T) {
	docs, packages := map[string][]string{}, map[string]string{}
	for _, s := range allSources(t) {
		if s.file.Doc != nil {
			docs[s.dir] = append(docs[s.dir], path.Base(s.path))
			want := "Package " + s.file.Name.Name + " "
			if s.file.Name.Name == "main" {
				want = "Command "
			}
			if !strings.HasPrefix(s.file.Doc.Text(), want) {
				t.Errorf("%s: the package's doc begins with %q", s.path, want)
			}
		}
		if !strings.HasSuffix(s.path, "_test.go") {
			packages[s.dir] = s.file.Name.Name
		}
	}
	for dir, name := range packages {
		switch got := docs[dir]; {
		case len(got) != 1:
			t.Errorf("%s has %d package docs (%s), want one", dir, len(got), strings.Join(got, ", "))
		case got[0] != "doc.go" && !(name == "main" && got[0] == "main.go") && !support(dir):
			t.Errorf("%s: the package's doc is in %s, not in doc.go", dir, got[0])
		}
	}
}

// setns is allowed in these: a goroutine that leaves a thread in another namespace harms whoever runs there next.
var setns = map[string]string{"pkg/netns": "the only place for it", "pkg/lab": "its hosts are mount namespaces too"}

// forbidden calls of code that runs in production, by selector.
func forbidden(s source, sel *ast.SelectorExpr) string {
	pkg, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	switch name := pkg.Name + "." + sel.Sel.Name; name {
	case "time.Sleep":
		return "it cannot be cancelled: select on a timer and a context"
	case "unix.Setns", "unix.SYS_SETNS":
		if setns[s.dir] == "" {
			return "setns is pkg/netns's: use netns.Do"
		}
	case "slog.Default", "slog.SetDefault", "slog.Info", "slog.Warn", "slog.Error", "slog.Debug", "log.Printf", "log.Println", "log.Fatal", "log.Fatalf":
		return "a logger is given, never global"
	}
	return ""
}

func TestForbiddenCalls(t *testing.T) {
	for _, s := range allSources(t) {
		if s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if why := forbidden(s, sel); why != "" {
					t.Errorf("%s: %s.%s: %s", s.at(n.Pos()), sel.X, sel.Sel.Name, why)
				}
			}
			return true
		})
	}
}

// words that must not be in the tree: they mean something on one machine only. Put together here, so that this file
// does not hold them.
var words = []string{"/ho" + "me/", "/wo" + "rk/", "/Us" + "ers/", "C:" + `\`}

func TestForbiddenWords(t *testing.T) {
	for _, p := range allFiles(t) {
		if path.Base(p) == "go.sum" {
			continue // hashes hold all kinds of words
		}
		text, err := os.ReadFile(filepath.Join(root, p))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			for _, w := range words {
				if bytes.Contains(line, []byte(w)) {
					t.Errorf("%s:%d holds %q: a path of one machine", p, i+1, w)
				}
			}
		}
	}
}

// TestFuzzTargets: test/fuzz finds targets by `go test -list`, so none may hide behind a build constraint, and each has
// seeds of its own or in testdata (a target without them rarely gets past its first check).
func TestFuzzTargets(t *testing.T) {
	n := 0
	for _, s := range allSources(t) {
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Fuzz") {
				continue
			}
			n++
			if !strings.HasSuffix(s.path, "_test.go") {
				t.Errorf("%s: fuzz target %s is not in a test file", s.at(f.Pos()), f.Name.Name)
			}
			if constrained(s) {
				t.Errorf("%s: fuzz target %s is behind a build constraint", s.at(f.Pos()), f.Name.Name)
			}
			seeds, err := filepath.Glob(filepath.Join(root, s.dir, "testdata/fuzz", f.Name.Name, "*"))
			if err != nil {
				t.Fatal(err)
			}
			if len(seeds) == 0 && !calls(f, "Add") {
				t.Errorf("%s: fuzz target %s has no seeds", s.at(f.Pos()), f.Name.Name)
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d fuzz targets: every parser of outside input has one", n)
	}
}

func constrained(s source) bool {
	for _, g := range s.file.Comments {
		for _, c := range g.List {
			if c.Pos() < s.file.Package && strings.HasPrefix(c.Text, "//go:build") {
				return true
			}
		}
	}
	return false
}

// calls reports whether f calls a method of this name.
func calls(f *ast.FuncDecl, method string) (found bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok {
			if sel, ok := c.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == method {
				found = true
			}
		}
		return !found
	})
	return found || callsLocal(f)
}

// callsLocal reports whether f hands its *testing.F to something else, which may add the seeds.
func callsLocal(f *ast.FuncDecl) (found bool) {
	if len(f.Type.Params.List) == 0 || len(f.Type.Params.List[0].Names) == 0 {
		return false
	}
	name := f.Type.Params.List[0].Names[0].Name
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok {
			for _, a := range c.Args {
				if id, ok := a.(*ast.Ident); ok && id.Name == name {
					found = true
				}
			}
		}
		return !found
	})
	return found
}
