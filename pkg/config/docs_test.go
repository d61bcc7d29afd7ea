package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const docs = "../../docs/configuration.md"

func docsTable() string {
	var b strings.Builder
	b.WriteString("| key | default | meaning | reload | variable |\n| --- | --- | --- | --- | --- |\n")
	for _, s := range settings {
		preset := s.presetDoc
		if preset == "" {
			preset = "`" + strings.Join(s.preset, ", ") + "`"
			if s.list {
				preset = "`[" + strings.Join(s.preset, ", ") + "]`"
			}
			if preset == "``" {
				preset = "none"
			}
		}
		reload, variable := "", "`"+s.env()+"`"
		if s.reload {
			reload = "yes"
		}
		if s.flagOnly {
			variable = "flag `--" + s.flag() + "` only"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", s.name, preset, s.help, reload, variable)
	}
	return b.String()
}

// TestDocs keeps the table of docs/configuration.md in step with the keys; -update writes it.
func TestDocs(t *testing.T) {
	data, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	const start, end = "-update -->\n", "<!-- end -->"
	before, rest, ok1 := strings.Cut(string(data), start)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("the marks around the table are gone")
	}
	if *update {
		if err := os.WriteFile(docs, []byte(before+start+docsTable()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	diff(t, docsTable(), got)
}

// TestDocsErrors loads a file with the mistakes that the docs show.
func TestDocsErrors(t *testing.T) {
	data, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"weft.yaml": "consul: {adress: x}\nwireguard: {backend: kernal}\n"})
	_, err = Load(options(dir))
	for _, line := range lines(err, dir) {
		if want := "    " + strings.Replace(line, "DIR", "/etc/weft", 1) + "\n"; !strings.Contains(string(data), want) {
			t.Errorf("docs lack the line %q", want)
		}
	}
}

// TestExamples parses deploy/config and demands that all four say the same.
func TestExamples(t *testing.T) {
	var first *Loaded
	for _, format := range []string{"yaml", "toml", "json", "hcl"} {
		o := options(t.TempDir())
		o.Path = filepath.Join("../../deploy/config", "weft."+format+".example")
		l := mustLoad(t, o)
		if first == nil {
			first = l
		}
		diff(t, first.Config, l.Config)
		for key, source := range l.Sources {
			if source.Kind != first.Sources[key].Kind {
				t.Errorf("%s: %s comes from %s, not from the same kind of place as in YAML", format, key, source)
			}
		}
	}
}

// TestExampleDefaults checks what the example's head says: everything but four keys is the default.
func TestExampleDefaults(t *testing.T) {
	o := options(t.TempDir())
	want := mustLoad(t, o).Config
	o.Path = "../../deploy/config/weft.yaml.example"
	reload, restart := Diff(want, mustLoad(t, o).Config)
	var keys []string
	for _, c := range append(reload, restart...) {
		keys = append(keys, c.Key)
	}
	diff(t, []string{"dns.upstreams", "node_name", "advertise", "consul.token_file"}, keys)
}
