package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sources is the text of all Go files below dir; tests says whether of tests or of the others. String literals that go on
// on the next line are joined.
func sources(t *testing.T, dir string, tests bool) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") != tests {
			return err
		}
		data, err := os.ReadFile(path)
		b.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`"\s*\+\s*\n\s*"`).ReplaceAllString(b.String(), "")
}

// rows are the cells of the first table after a line that begins with heading.
func (p page) rows(t *testing.T, heading string) (out [][]string) {
	t.Helper()
	i := slices.IndexFunc(p.lines, func(l string) bool { return strings.HasPrefix(l, "#") && strings.TrimLeft(l, "# ") == heading })
	if i < 0 {
		t.Fatalf("%s has no heading %q", p.path, heading)
	}
	for _, line := range p.lines[i+1:] {
		if strings.HasPrefix(line, "#") || len(out) > 0 && !strings.HasPrefix(line, "|") {
			break
		}
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "| ---") {
			continue
		}
		var cells []string
		for c := range strings.SplitSeq(strings.Trim(line, "|"), " | ") {
			cells = append(cells, strings.TrimSpace(c))
		}
		out = append(out, cells)
	}
	if len(out) < 2 {
		t.Fatalf("%s has no table below %q", p.path, heading)
	}
	return out[1:] // without the head
}

var testName = regexp.MustCompile("`(Test[A-Z][A-Za-z]*)`")

// TestPromises: each promise of the README names a test that exists, or says that it is planned; and so does every other
// page that names a test.
func TestPromises(t *testing.T) {
	code := sources(t, "", true)
	for _, row := range open(t, "README.md").rows(t, "What is promised") {
		proof := row[len(row)-1]
		if proof != "planned" && !testName.MatchString(proof) {
			t.Errorf("README.md: %s: neither a test nor planned: %s", row[0], proof)
		}
	}
	for _, p := range pages(t, false) {
		for _, m := range testName.FindAllStringSubmatch(p.text, -1) {
			if !strings.Contains(code, "\nfunc "+m[1]+"(") {
				t.Errorf("%s names the test %s, which is not there", p.path, m[1])
			}
		}
	}
}

// TestCounters: the table of drop counters has what pkg/plan counts.
func TestCounters(t *testing.T) {
	counted := map[string]bool{}
	for _, m := range regexp.MustCompile(`counter ([a-z0-9_]+) drop`).FindAllStringSubmatch(sources(t, "pkg/plan", false), -1) {
		counted[m[1]] = true
	}
	page := open(t, "docs/troubleshooting.md")
	for _, row := range page.rows(t, "Drop counters") {
		name := strings.Trim(row[0], "`")
		if !counted[name] {
			t.Errorf("%s describes counter %s, which nothing counts", page.path, name)
		}
		delete(counted, name)
	}
	for name := range counted {
		t.Errorf("%s does not describe counter %s", page.path, name)
	}
}

// TestTexts: what the page says weft prints stands in weft's source, apart from what … stands for.
func TestTexts(t *testing.T) {
	code := strings.ReplaceAll(sources(t, "", false), `\"`, `"`)
	page := open(t, "docs/troubleshooting.md")
	for _, heading := range []string{"What status says", "What commands say"} {
		for _, row := range page.rows(t, heading) {
			for part := range strings.SplitSeq(strings.Trim(strings.SplitN(row[0], "` (", 2)[0], "`"), "…") {
				if part = strings.TrimSpace(part); !strings.Contains(code, part) {
					t.Errorf("%s: nothing in weft prints %q", page.path, part)
				}
			}
		}
	}
}

// unitKeys are the keys that systemd knows, of those that one may want here (systemd.unit(5), .service(5), .exec(5),
// .kill(5), .resource-control(5)): a key that is misspelt is ignored by systemd with a warning only.
var unitKeys = strings.Fields(`Description Documentation After Wants Requires Before BindsTo PartOf StartLimitIntervalSec StartLimitBurst
	Type ExecStart ExecStartPre ExecReload Restart RestartSec KillMode KillSignal TimeoutStartSec TimeoutStopSec Environment EnvironmentFile
	RuntimeDirectory RuntimeDirectoryMode RuntimeDirectoryPreserve StateDirectory StateDirectoryMode ConfigurationDirectory
	CapabilityBoundingSet NoNewPrivileges LimitNOFILE LimitMEMLOCK TasksMax OOMScoreAdjust Delegate NotifyAccess WatchdogSec Slice WantedBy`)

// TestUnitKeys: test/arch says what the unit must not hold; this, that nothing in it is misspelt and that it starts weft.
func TestUnitKeys(t *testing.T) {
	for line := range strings.Lines(read(t, "deploy/systemd/weft.service")) {
		key, value, assigns := strings.Cut(strings.TrimSpace(line), "=")
		if !assigns || strings.HasPrefix(key, "#") {
			continue
		}
		if !slices.Contains(unitKeys, key) {
			t.Errorf("deploy/systemd/weft.service: no key %s", key)
		}
		if key == "ExecStart" {
			if code, out := weft(t, strings.Fields(value)[1:]...); code == 2 {
				t.Errorf("deploy/systemd/weft.service: %s: %s", value, out)
			}
		}
		if key == "RuntimeDirectoryPreserve" && value != "yes" {
			t.Error("deploy/systemd/weft.service: without RuntimeDirectoryPreserve=yes a restart removes what running programs have open")
		}
	}
}

var anchorLink = regexp.MustCompile(`\]\(([^)#\s]*)#([^)\s]+)\)`)

// TestAnchors: links into a page lead to a heading of it. That files exist is tested by test/arch.
func TestAnchors(t *testing.T) {
	for _, p := range pages(t, true) {
		for _, m := range anchorLink.FindAllStringSubmatch(p.text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := p
			if m[1] != "" {
				target = open(t, filepath.ToSlash(filepath.Join(filepath.Dir(p.path), m[1])))
			}
			if !slices.Contains(target.anchors(), m[2]) {
				t.Errorf("%s links to %s, which has no heading #%s", p.path, target.path, m[2])
			}
		}
	}
}

// anchors are the names of a page's headings as links use them.
func (p page) anchors() (out []string) {
	for _, line := range p.lines {
		if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			name := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(title), "")
			out = append(out, strings.ReplaceAll(name, " ", "-"))
		}
	}
	return out
}

// TestLinked: a reader finds every page from the README or from a page that it links to.
func TestLinked(t *testing.T) {
	seen := map[string]bool{}
	var follow func(rel string)
	follow = func(rel string) {
		if seen[rel] || filepath.Ext(rel) != ".md" {
			return
		}
		seen[rel] = true
		for _, m := range regexp.MustCompile(`\]\(([^)#\s:]+)`).FindAllStringSubmatch(read(t, rel), -1) {
			if next := filepath.ToSlash(filepath.Join(filepath.Dir(rel), m[1])); fs.ValidPath(next) {
				if _, err := os.Stat(filepath.Join(root, next)); err == nil {
					follow(next)
				}
			}
		}
	}
	follow("README.md")
	for _, p := range pages(t, true) {
		if !seen[p.path] {
			t.Errorf("%s cannot be reached from README.md", p.path)
		}
	}
}
