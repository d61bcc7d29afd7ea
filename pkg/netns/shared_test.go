package netns

import (
	"os"
	"path/filepath"
	"testing"
)

func TestParseMount(t *testing.T) {
	const root = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
	const run = "30 27 0:25 / /run rw shared:5 - tmpfs tmpfs rw\n"
	for name, c := range map[string]struct{ text, want string }{
		"empty":               {"", ""},
		"root only":           {root, "1"},
		"own mount":           {root + run + "42 30 0:25 /netns /run/netns rw shared:9 - tmpfs tmpfs rw\n", "9"},
		"in run":              {root + run + "31 30 0:26 / /run/net rw shared:7 - tmpfs tmpfs rw\n", "5"},
		"slave":               {root + "30 27 0:25 / /run rw master:5 - tmpfs tmpfs rw\n", ""},
		"slave and shared":    {root + "30 27 0:25 / /run rw master:5 shared:8 - tmpfs tmpfs rw\n", "8"},
		"private":             {root + "30 27 0:25 / /run rw - tmpfs tmpfs rw\n", ""},
		"later mount on top":  {run + "31 30 0:26 / /run rw shared:6 - tmpfs tmpfs rw\n", "6"},
		"not an option field": {"30 27 0:25 / /run rw - tmpfs shared:3 rw\n", ""},
		"short line":          {"30 27\n" + root, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := parseMount(c.text, Dir).group; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestSharedWith(t *testing.T) {
	for name, c := range map[string]struct {
		a, b mount
		want bool
	}{
		"same mount":        {mount{id: "27"}, mount{id: "27"}, true},
		"same group":        {mount{id: "27", group: "1"}, mount{id: "28", group: "1"}, true},
		"nothing in common": {mount{id: "27"}, mount{id: "28"}, false},
		"nothing known":     {mount{}, mount{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.a.sharedWith(c.b); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func FuzzParseMount(f *testing.F) {
	f.Add("27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n")
	f.Fuzz(func(t *testing.T, s string) { parseMount(s, Dir) })
}

func TestLinkTarget(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "resolv.conf")
	if err := os.Symlink("sub/stub.conf", link); err != nil {
		t.Fatal(err)
	}
	got, err := linkTarget(link)
	if want := filepath.Join(dir, "sub/stub.conf"); err != nil || got != want {
		t.Fatalf("got %q %v, want %q", got, err, want)
	}
	if _, err := os.Stat(got); err != nil {
		t.Error(err)
	}
}

func TestLookPath(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for p, mode := range map[string]os.FileMode{a + "/tool": 0o644, b + "/tool": 0o755, a + "/data": 0o644} {
		if err := os.WriteFile(p, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=" + a + ":" + b}
	if got, err := lookPath("tool", env); got != b+"/tool" || err != nil {
		t.Errorf("got %q %v", got, err)
	}
	if _, err := lookPath("data", env); !os.IsPermission(err) && err == nil {
		t.Errorf("not executable: %v", err)
	}
}
