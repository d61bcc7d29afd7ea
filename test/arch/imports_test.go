package arch

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// wall says that a library may be imported only here. Test files of the same packages may too, and all below test/.
type wall struct {
	library string
	but     string // this part of it is another wall's
	reason  string
	allowed []string
}

var walls = []wall{
	{library: "github.com/spf13/viper", reason: "settings reach the rest as one checked struct", allowed: []string{"pkg/config"}},
	{library: "github.com/fsnotify/fsnotify", reason: "only settings are files that change under us", allowed: []string{"pkg/config"}},
	{library: "github.com/hashicorp/hcl", reason: "only settings are written in HCL", allowed: []string{"pkg/config"}},
	{library: "github.com/hashicorp/consul", reason: "Consul's errors, indexes and stale reads end at one wall",
		allowed: []string{"consul", "consul/consultest"}},
	{library: "github.com/vishvananda/netlink", reason: "kernel state is values everywhere else, and dumps go through a retry",
		allowed: []string{"pkg/kernel", "pkg/netns", "pkg/wireguard", "pkg/lab"}},
	{library: "github.com/vishvananda/netns", reason: "a thread in the wrong namespace harms everything after it",
		allowed: []string{"pkg/kernel", "pkg/netns", "pkg/wireguard", "pkg/lab"}},
	{library: "github.com/google/nftables", reason: "rules are text everywhere else",
		allowed: []string{"pkg/kernel", "pkg/netns", "pkg/wireguard", "pkg/lab"}},
	{library: "golang.zx2c4.com/wireguard/wgctrl", reason: "one small interface over kernel and engine",
		allowed: []string{"pkg/kernel", "pkg/netns", "pkg/wireguard", "pkg/lab"}},
	{library: "golang.zx2c4.com/wireguard", but: "golang.zx2c4.com/wireguard/wgctrl",
		reason: "the userspace data path is a process of its own", allowed: []string{"pkg/engine"}},
	{library: "github.com/miekg/dns", reason: "zone answers are pure everywhere else", allowed: []string{"dns"}},
	{library: "github.com/spf13/cobra", reason: "the command line is a client like others", allowed: []string{"cmd/weft"}},
	{library: "github.com/coreos/go-systemd", reason: "readiness is the process's business, not the agent's", allowed: []string{"cmd/weft"}},
	{library: "github.com/containernetworking", reason: "runtimes meet weft in the plugin only", allowed: []string{"pkg/cni", "cmd/weft-cni"}},
	{library: "github.com/google/go-cmp", reason: "it is for tests: it panics"},
	{library: "go.uber.org/goleak", reason: "it is for tests"},
}

func within(importPath, library string) bool {
	return library != "" && (importPath == library || strings.HasPrefix(importPath, library+"/"))
}

func imports(s source) []string {
	var out []string
	for _, i := range s.file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			panic("arch: " + err.Error())
		}
		out = append(out, p)
	}
	return out
}

func TestWalls(t *testing.T) {
	used := map[string]bool{}
	for _, s := range allSources(t) {
		for _, p := range imports(s) {
			for _, w := range walls {
				if !within(p, w.library) || within(p, w.but) {
					continue
				}
				used[w.library] = true
				forTests := len(w.allowed) == 0 && s.test
				if !slices.Contains(w.allowed, s.dir) && !strings.HasPrefix(s.dir, "test/") && !forTests {
					t.Errorf("%s imports %s, which is for %s only: %s", s.path, p, strings.Join(append(w.allowed, "test/"), ", "), w.reason)
				}
			}
		}
	}
	for _, w := range walls {
		if !used[w.library] {
			t.Errorf("nothing imports %s: the wall around it can go", w.library)
		}
	}
}

// ranks orders weft's own packages: each imports only what has a lower rank. The drawing is in design.md section 2.
var ranks = map[string]int{
	"keys":               0,
	"keys/store":         1,
	"pkg/overlay":        1,
	"pkg/config":         1,
	"pkg/netns":          1,
	"pkg/kstate":         2,
	"pkg/api":            2,
	"pkg/ledger":         2,
	"pkg/ipam":           2,
	"pkg/plan":           3,
	"pkg/rotate":         1,
	"pkg/wireguard":      3,
	"pkg/engine":         4,
	"pkg/engine/control": 3,
	"pkg/engine/frame":   1,
	"pkg/apiclient":      3,
	"pkg/apiserver":      3,
	"pkg/telemetry":      1,
	"pkg/cni/queue":      2,
	"pkg/cni":            4,
	"pkg/docker":         4,
	"consul":             4,
	"dns":                4,
	"pkg/kernel":         4,
	"pkg/lab":            4,
	"pkg/reconcile":      4,
	"pkg/agent":          5,
	"cmd/weft":           6,
	"cmd/weft-cni":       6,
}

func TestImportsPointDown(t *testing.T) {
	for _, s := range allSources(t) {
		if s.test {
			continue
		}
		rank, ok := ranks[s.dir]
		if !ok {
			t.Errorf("%s: package %s has no rank: give it one in test/arch, below all that may import it", s.path, s.dir)
			continue
		}
		for _, p := range imports(s) {
			own, ours := strings.CutPrefix(p, "weft/")
			if !ours {
				continue
			}
			if support(own) {
				t.Errorf("%s imports %s, which is for tests", s.path, p)
			} else if ranks[own] >= rank {
				t.Errorf("%s (rank %d) imports %s (rank %d): imports point down", s.path, rank, own, ranks[own])
			}
		}
	}
}

// only lists what some packages may import of weft, where the ranks would allow more.
var only = map[string][]string{
	"keys":        {},
	"pkg/overlay": {"weft/keys"},
	"pkg/kstate":  {"weft/keys", "weft/pkg/overlay"},
	"pkg/plan":    {"weft/keys", "weft/pkg/overlay", "weft/pkg/kstate"},
	"pkg/ledger":  {"weft/keys", "weft/pkg/overlay"},
	"pkg/rotate":  {},
	"pkg/api":     {"weft/pkg/overlay"},
	"pkg/config":  {},
	"pkg/netns":   {},
	"dns":         {"weft/pkg/overlay"},
	// weft-cni starts once per container and command: what it imports must stay small.
	"pkg/cni":      {"weft/pkg/api", "weft/pkg/apiclient", "weft/pkg/overlay", "weft/pkg/cni/queue"},
	"cmd/weft-cni": {"weft/pkg/cni"},
	"pkg/lab":      {"weft/pkg/api"}, // it drives weft from outside, as a person would
}

// pure packages decide: values in, values out. They have no use for these.
var (
	pure   = []string{"pkg/overlay", "pkg/kstate", "pkg/plan", "pkg/ledger", "pkg/rotate"}
	impure = []string{"context", "log", "log/slog", "net/http", "os", "os/exec", "syscall", "golang.org/x/sys", "math/rand", "math/rand/v2", "sync"}
)

func TestPurePackages(t *testing.T) {
	for _, s := range allSources(t) {
		if s.test {
			continue
		}
		allowed, limited := only[s.dir]
		for _, p := range imports(s) {
			if limited && strings.HasPrefix(p, "weft/") && !slices.Contains(allowed, p) {
				t.Errorf("%s imports %s: of weft it may import only %v", s.path, p, allowed)
			}
			bad := slices.ContainsFunc(impure, func(i string) bool { return within(p, i) })
			if bad && slices.Contains(pure, s.dir) {
				t.Errorf("%s imports %s: %s decides and does nothing else; time and chance arrive as arguments", s.path, p, s.dir)
			}
		}
	}
}

// TestWallsHold: the checks above find what they look for.
func TestWallsHold(t *testing.T) {
	for p, want := range map[string]string{
		"golang.zx2c4.com/wireguard/wgctrl/wgtypes": "golang.zx2c4.com/wireguard/wgctrl",
		"golang.zx2c4.com/wireguard/device":         "golang.zx2c4.com/wireguard",
		"github.com/hashicorp/consul/api":           "github.com/hashicorp/consul",
		"github.com/miekg/dnsx":                     "",
		"github.com/vishvananda/netlink":            "github.com/vishvananda/netlink",
	} {
		got := ""
		for _, w := range walls {
			if within(p, w.library) && !within(p, w.but) {
				got += w.library
			}
		}
		if got != want {
			t.Errorf("%s is behind wall %q, want %q", p, got, want)
		}
	}
}
