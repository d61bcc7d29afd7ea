package lab

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

const statTail = " S 1 4242 4242 0 -1 4194560 5 0 0 0 1 2 3 4 20 0 9 0 98765 1000 200"

func TestParseStat(t *testing.T) {
	type result struct {
		State string
		Start uint64
		OK    bool
	}
	tests := map[string]struct {
		in   string
		want result
	}{
		"plain":              {"4242 (weft)" + statTail, result{"S", 98765, true}},
		"name with brackets": {"4242 (a) b (c))" + statTail, result{"S", 98765, true}},
		"no name":            {"4242 weft S 1", result{}},
		"too short":          {"4242 (weft) S 1 2 3", result{}},
		"no number":          {strings.Replace("4242 (weft)"+statTail, "98765", "x", 1), result{}},
		"empty":              {"", result{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			state, start, err := parseStat([]byte(tt.in))
			if diff := cmp.Diff(tt.want, result{state, start, err == nil}); diff != "" {
				t.Errorf("parseStat (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("4242 (weft)" + statTail))
	f.Add([]byte("1 (a) b)" + statTail))
	f.Fuzz(func(t *testing.T, in []byte) {
		if state, _, err := parseStat(in); err == nil && state == "" {
			t.Error("success without a state")
		}
	})
}

func TestParseMark(t *testing.T) {
	tests := map[string]struct {
		args      []string
		verb, dir string
	}{
		"host":           {[]string{"/x/weft", "lab", "host", "--lab", "/run/weft-lab/a", "--host", "n1"}, "host", "/run/weft-lab/a"},
		"enter":          {[]string{"weft", "lab", "enter", "--lab", "/l", "n1", "--", "true"}, "enter", "/l"},
		"lab up":         {[]string{"weft", "lab", "up", "--name", "/l"}, "", ""},
		"relative":       {[]string{"weft", "lab", "host", "--lab", "l"}, "", ""},
		"only mentioned": {[]string{"grep", "-r", "lab", "host", "--lab", "/l"}, "", ""},
		"short":          {[]string{"weft", "lab"}, "", ""},
		"none":           {nil, "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			verb, dir := parseMark([]byte(strings.Join(append(tt.args, ""), "\x00")))
			if dir != tt.dir || (dir != "" && verb != tt.verb) {
				t.Errorf("parseMark = %q, %q, want %q, %q", verb, dir, tt.verb, tt.dir)
			}
		})
	}
}

func FuzzParseMark(f *testing.F) {
	f.Add([]byte("weft\x00lab\x00host\x00--lab\x00/l\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, dir := parseMark(in); dir != "" && !filepath.IsAbs(dir) {
			t.Errorf("mark names %q", dir)
		}
	})
}

func TestParseInnerPID(t *testing.T) {
	tests := map[string]struct {
		in   string
		want int
	}{
		"nested":  {"Name:\tx\nNSpid:\t4242\t7\nNSpgid:\t1\n", 7},
		"single":  {"NSpid:\t4242\n", 4242},
		"missing": {"Name:\tx\n", 0},
		"empty":   {"NSpid:\n", 0},
		"rubbish": {"NSpid:\tx\n", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := parseInnerPID([]byte(tt.in)); got != tt.want {
				t.Errorf("parseInnerPID = %d, want %d", got, tt.want)
			}
		})
	}
}

func FuzzParseInnerPID(f *testing.F) {
	f.Add([]byte("NSpid:\t4242\t7\n"))
	f.Fuzz(func(t *testing.T, in []byte) { parseInnerPID(in) })
}

func TestOwnProcess(t *testing.T) {
	p, err := findProcess(os.Getpid())
	if err != nil || !p.alive() || p.zombie() {
		t.Errorf("own process: %+v, %v, alive %v, zombie %v", p, err, p.alive(), p.zombie())
	}
	p.Start++
	if p.alive() {
		t.Error("a process with another start time counts as this one")
	}
	if err := p.signal(0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("signal to a process with another start time: %v, want not exist", err)
	}
}

func TestOptions(t *testing.T) {
	bin := t.TempDir()
	for _, name := range []string{"weft", "consul"} {
		if err := os.WriteFile(filepath.Join(bin, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	base := Options{Weft: filepath.Join(bin, "weft"), Consul: filepath.Join(bin, "consul")}
	tests := map[string]struct {
		change func(*Options)
		want   string // in the error; empty for none
	}{
		"zero value":     {func(o *Options) {}, ""},
		"one node":       {func(o *Options) { o.Nodes = 1 }, ""},
		"jumbo":          {func(o *Options) { o.MTU = 9000 }, ""},
		"negative nodes": {func(o *Options) { o.Nodes = -1 }, "want 1 to 100"},
		"many nodes":     {func(o *Options) { o.Nodes = 101 }, "want 1 to 100"},
		"backend":        {func(o *Options) { o.Backend = "fast" }, "want auto, kernel or engine"},
		"node's backend": {func(o *Options) { o.Backends = map[string]string{"n2": "fast"} }, "backend \"fast\" of n2: want auto, kernel or engine"},
		"small MTU":      {func(o *Options) { o.MTU = 576 }, "want 1280 to 65535"},
		"name":           {func(o *Options) { o.Name = "../x" }, "want lower-case letters"},
		"name from dir":  {func(o *Options) { o.Dir = "/tmp/A B" }, "want lower-case letters"},
		"no weft":        {func(o *Options) { o.Weft = filepath.Join(bin, "absent") }, "find weft binary"},
		"weft a folder":  {func(o *Options) { o.Weft = bin }, "find weft binary"},
		"no consul":      {func(o *Options) { o.Consul = filepath.Join(bin, "absent") }, "find consul binary"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := base
			tt.change(&o)
			_, err := o.complete()
			if tt.want == "" && err != nil {
				t.Errorf("complete: %v", err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("complete: %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestHostEnv(t *testing.T) {
	got := hostEnv([]string{"A=1", "PATH=/bin", "WEFT_SOCKET=/x", "CONSUL_HTTP_ADDR=y", "WEFT_LOG_LEVEL=debug"}, "/opt/w/weft", "/opt/c/consul")
	want := []string{"A=1", "WEFT_LOG_LEVEL=debug", "PATH=/opt/w:/bin:/opt/c"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("hostEnv (-want +got):\n%s", diff)
	}
}

func TestAgentConfig(t *testing.T) {
	l := &Lab{dir: "/run/weft-lab/x", state: newState(Options{Name: "x", Nodes: 2, Backend: "auto", Backends: map[string]string{"n2": "engine"}})}
	base := map[string]any{
		"node_name": "n2", "data_dir": "/run/weft-lab/x/n2/data", "socket": "/run/weft/weft.sock", "advertise": "198.18.0.2",
		"wireguard": map[string]any{"backend": "engine"}, "consul": map[string]any{"address": "127.0.0.1:8500"},
	}
	tests := map[string]struct {
		extra  string
		change func(map[string]any)
		err    string
	}{
		"plain":            {"", func(map[string]any) {}, ""},
		"new section":      {"log: {level: debug}", func(m map[string]any) { m["log"] = map[string]any{"level": "debug"} }, ""},
		"into a section":   {"wireguard: {keepalive: 5s}", func(m map[string]any) { m["wireguard"] = map[string]any{"backend": "engine", "keepalive": "5s"} }, ""},
		"over a value":     {"advertise: eth0", func(m map[string]any) { m["advertise"] = "eth0" }, ""},
		"value on section": {"wireguard: 7", nil, "wireguard: a section and a value"},
		"section on value": {"socket: {a: 1}", nil, "socket: a section and a value"},
		"no YAML":          {"a: [", nil, "merge configuration"},
	}
	h, err := l.Host("n2")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			data, err := l.agentConfig(h, tt.extra)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("agentConfig: %v, want %q in it", err, tt.err)
				}
				return
			}
			var got map[string]any
			if err == nil {
				err = yaml.Unmarshal(data, &got)
			}
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]any{}
			for k, v := range base {
				want[k] = v
			}
			tt.change(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("agentConfig (-want +got):\n%s", diff)
			}
		})
	}
}

func TestState(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open without a state file: %v, want not exist", err)
	}
	s := newState(Options{Name: "x", Nodes: 2, MTU: 1500})
	if err := s.save(dir); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for _, h := range l.Hosts() {
		hosts = append(hosts, strings.TrimSpace(h.Name+" "+h.MAC))
	}
	want := []string{"switch", "consul 02:00:c6:12:00:c8", "out 02:00:c6:12:00:fa", "n1 02:00:c6:12:00:01", "n2 02:00:c6:12:00:02"}
	if diff := cmp.Diff(want, hosts); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	if _, err := l.Host("n3"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "n1, n2") {
		t.Errorf("unknown host: %v, want not exist, with the hosts there are", err)
	}
	if err := s.save(filepath.Join(dir, "gone")); err == nil {
		t.Error("saving made the directory of a lab that is gone")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("directory after saving: %v, %v, want the state file alone", left, err)
	}
}
