package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// root of the module, from this package's directory, where tests run.
const root = "../.."

// source is one Go file.
type source struct {
	path string // relative to the root, with slashes
	dir  string // the same of its package
	test bool   // a test file, or a file of a package that only tests use (its name ends in "test")
	text []byte
	file *ast.File
	fset *token.FileSet
}

// at is a position for an error: clickable in most terminals.
func (s source) at(p token.Pos) string {
	return s.path + ":" + itoa(s.fset.Position(p).Line)
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

// skipped directories are not part of the source: git's, and what the Makefile builds.
var skipped = map[string]bool{".git": true, "bin": true}

// files is every regular file of the tree, relative to the root.
var files = sync.OnceValues(func() ([]string, error) {
	var out []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() && skipped[rel] {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() {
			out = append(out, filepath.ToSlash(rel))
		}
		return nil
	})
	return out, err
})

// sources is every Go file of the tree, parsed.
var sources = sync.OnceValues(func() ([]source, error) {
	all, err := files()
	if err != nil {
		return nil, err
	}
	var out []source
	for _, p := range all {
		if path.Ext(p) != ".go" {
			continue
		}
		s := source{path: p, dir: path.Dir(p), fset: token.NewFileSet()}
		s.test = strings.HasSuffix(p, "_test.go") || support(s.dir)
		if s.text, err = os.ReadFile(filepath.Join(root, p)); err != nil {
			return nil, err
		}
		if s.file, err = parser.ParseFile(s.fset, p, s.text, parser.ParseComments|parser.SkipObjectResolution); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
})

// support reports whether a package only serves tests: consultest, netnstest, ... and all below test/.
func support(dir string) bool {
	return strings.HasSuffix(dir, "test") || strings.HasPrefix(dir, "test/")
}

func allFiles(t *testing.T) []string {
	t.Helper()
	out, err := files()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func allSources(t *testing.T) []source {
	t.Helper()
	out, err := sources()
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 100 {
		t.Fatalf("only %d Go files: is this the root of the module?", len(out))
	}
	return out
}
