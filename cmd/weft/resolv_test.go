package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWriteResolvConf(t *testing.T) {
	var four []netip.Addr
	for _, s := range []string{"10.0.0.1", "10.0.1.1", "fd00::1", "10.0.3.1"} {
		four = append(four, netip.MustParseAddr(s))
	}
	for _, tt := range []struct {
		name   string
		id     string
		dns    []netip.Addr
		search []string
		want   string
	}{
		{"with a search list", "abc", four[:1], []string{"my-app.weft"}, "nameserver 10.0.0.1\nsearch my-app.weft\noptions ndots:1 timeout:2\n"},
		{"one", "abc", four[:1], nil, "nameserver 10.0.0.1\noptions ndots:1 timeout:2\n"},
		{"no more than are read", "abc", four, nil, "nameserver 10.0.0.1\nnameserver 10.0.1.1\nnameserver fd00::1\noptions ndots:1 timeout:2\n"},
		{"an id that is no file name", "../pod/*", four[:1], nil, "nameserver 10.0.0.1\noptions ndots:1 timeout:2\n"},
		{"none", "abc", nil, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "resolv")
			path, err := writeResolvConf(dir, tt.id, tt.dns, tt.search)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" {
				if path != "" {
					t.Errorf("a file %s for nothing", path)
				}
				return
			}
			data, err := os.ReadFile(path)
			if diff := cmp.Diff(tt.want, string(data)); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			fi, err := os.Stat(path)
			if err != nil || fi.Mode().Perm() != 0o644 || filepath.Dir(path) != dir {
				t.Errorf("%s: %v, %v", path, fi.Mode(), err)
			}
			old := time.Now().Add(-time.Hour)
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
			next, err := writeResolvConf(dir, "next", tt.dns, nil)
			if err != nil {
				t.Fatal(err)
			}
			if left, _ := filepath.Glob(dir + "/*"); len(left) != 1 || left[0] != next {
				t.Errorf("files: %v, want only %s", left, next)
			}
			removeResolvConf(next)
			removeResolvConf(next)
		})
	}
}
