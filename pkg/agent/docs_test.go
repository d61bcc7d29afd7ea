package agent

import (
	"bufio"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"weft/pkg/config"
)

// recipe is the code block of docs/names.md in a language.
func recipe(t *testing.T, language string) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/names.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(data), "\n```"+language+"\n")
	code, _, end := strings.Cut(rest, "\n```")
	if !ok || !end {
		t.Fatalf("docs/names.md has no %s recipe", language)
	}
	return code
}

// TestRecipes: what docs/names.md tells other resolvers leads to where an agent with default settings answers, and is
// taken by those of them that are installed.
func TestRecipes(t *testing.T) {
	l, err := config.Load(config.Options{Environ: []string{"WEFT_NODE_NAME=n1"}})
	if err != nil {
		t.Fatal(err)
	}
	listen, domain := l.Config.DNS.Listen, l.Config.DNS.Domain

	resolved := map[string]string{}
	section := ""
	for lines := bufio.NewScanner(strings.NewReader(recipe(t, "ini"))); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section != "[Resolve]" {
			t.Errorf("systemd-resolved: line %q is no setting of [Resolve]", line)
		}
		resolved[key] = value
	}
	if a, err := netip.ParseAddrPort(resolved["DNS"]); err != nil || a != listen || resolved["Domains"] != "~"+domain || len(resolved) != 2 {
		t.Errorf("systemd-resolved: %v, %v; want %s for ~%s", resolved, err, listen, domain)
	}

	masq := recipe(t, "conf")
	want := "server=/" + domain + "/" + listen.Addr().String() + "#"
	if !strings.Contains(masq, want+"8653\n") {
		t.Errorf("dnsmasq: no line %s8653 in\n%s", want, masq)
	}
	check(t, "dnsmasq", masq, "weft.conf", func(path string) []string { return []string{"--test", "--conf-file=" + path} })

	hcl := recipe(t, "hcl")
	m := regexp.MustCompile(`^recursors = \["([^"]+)", "[^"]+"\]$`).FindStringSubmatch(hcl)
	if m == nil || m[1] != listen.String() {
		t.Errorf("consul: %q does not begin with %s", hcl, listen)
	}
	check(t, "../../bin/consul", hcl+"\ndata_dir = \"/tmp/none\"\n", "weft.hcl", func(path string) []string { return []string{"validate", path} })
}

// check lets a program check a file; one that is not installed is passed over.
func check(t *testing.T, program, content, name string, args func(path string) []string) {
	t.Helper()
	bin, err := exec.LookPath(program)
	if err != nil {
		t.Logf("%s is not here to check its recipe", program)
		return
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(bin, args(path)...).CombinedOutput(); err != nil {
		t.Errorf("%s does not take its recipe: %v\n%s", program, err, out)
	}
}
