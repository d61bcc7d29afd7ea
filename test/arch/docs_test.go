package arch

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// documented are the trees whose exported identifiers other packages use.
var documented = []string{"pkg/", "keys/", "consul/", "dns/"}

// self-explaining methods are those of well-known interfaces.
var known = strings.Fields("String GoString Format LogValue Error Unwrap Is MarshalText UnmarshalText MarshalJSON UnmarshalJSON Len Less Swap")

// TestExportedDocs: who uses a package reads its documentation, not its code.
func TestExportedDocs(t *testing.T) {
	methods := interfaceMethods(allSources(t))
	for _, s := range allSources(t) {
		if s.test || !slices.ContainsFunc(documented, func(d string) bool { return strings.HasPrefix(s.path, d) }) {
			continue
		}
		for _, d := range s.file.Decls {
			for _, e := range undocumented(d) {
				if e.recv && (slices.Contains(known, e.name) || methods[s.dir+"."+e.name]) {
					continue
				}
				t.Errorf("%s: %s is exported and has no doc comment", s.at(e.pos), e.name)
			}
		}
	}
}

// interfaceMethods are the methods of the exported interfaces of each package, as "dir.Name": they are documented there.
func interfaceMethods(all []source) map[string]bool {
	out := map[string]bool{}
	for _, s := range all {
		ast.Inspect(s.file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || !spec.Name.IsExported() {
				return true
			}
			if i, ok := spec.Type.(*ast.InterfaceType); ok {
				for _, m := range i.Methods.List {
					for _, name := range m.Names {
						out[s.dir+"."+name.Name] = true
					}
				}
			}
			return true
		})
	}
	return out
}

// exported is an exported identifier.
type exported struct {
	name string
	pos  token.Pos
	recv bool // a method
}

// undocumented are the exported identifiers of a declaration without a comment. A comment on a group counts for all, and
// one on a value for those after it that it names.
func undocumented(d ast.Decl) (out []exported) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || ast.IsExported(receiver(d))) {
			out = append(out, exported{d.Name.Name, d.Pos(), d.Recv != nil})
		}
	case *ast.GenDecl:
		above := ""
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() && spec.Doc == nil && d.Doc == nil {
					out = append(out, exported{spec.Name.Name, spec.Pos(), false})
				}
			case *ast.ValueSpec:
				if spec.Doc != nil {
					above = spec.Doc.Text()
				}
				for _, n := range spec.Names {
					if strings.Contains(above, n.Name) {
						continue
					}
					if n.IsExported() && spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
						out = append(out, exported{n.Name, n.Pos(), false})
					}
				}
			}
		}
	}
	return out
}

// receiver is the type name of a method's receiver.
func receiver(d *ast.FuncDecl) string {
	e := d.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
