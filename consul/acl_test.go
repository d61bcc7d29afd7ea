package consul_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/consul"
	"weft/consul/consultest"
)

const (
	management = "11111111-2222-3333-4444-555555555555"

	acls = `acl {
  enabled        = true
  default_policy = "deny"
  tokens { initial_management = "` + management + `" }
}`
)

// aclToken makes a token with the given rules and returns its secret.
func aclToken(s *consultest.Server, name, rules string) string {
	s.CLI("acl", "policy", "create", "-token="+management, "-name="+name, "-rules="+rules)
	out := s.CLI("acl", "token", "create", "-token="+management, "-policy-name="+name)
	for line := range strings.Lines(out) {
		if id, ok := strings.CutPrefix(line, "SecretID:"); ok {
			return strings.TrimSpace(id)
		}
	}
	return ""
}

// guarded is a server that denies by default, with some keys, and a client that may do everything.
func guarded(t *testing.T) (*consultest.Server, *consul.Client) {
	t.Helper()
	s := consultest.Start(t, acls)
	admin := client(t, consul.Config{Address: s.Address, Token: management})
	if _, err := admin.EnsureCluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, admin, "nodes/n1", "x")
	put(t, admin, "leases/net/10.0.0.2", `{"node": "n1", "state": "used"}`)
	return s, admin
}

func TestUnreadableIsNotEmpty(t *testing.T) {
	s, _ := guarded(t)
	ctx := t.Context()
	none := aclToken(s, "none", `service "other" { policy = "read" }`)
	for _, tc := range []struct{ name, token string }{
		{"anonymous", ""}, {"without rights", none}, {"unknown", "99999999-2222-3333-4444-555555555555"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := client(t, consul.Config{Address: s.Address, Token: tc.token})
			_, err := c.List(ctx, "nodes")
			wantErr(t, err, consul.ErrUnreadable)
			if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), `the token needs key_prefix "weft/" read`) {
				t.Errorf("list says %v", err)
			}
			for _, path := range []string{"nodes/n1", "nodes/n2", "cluster"} {
				_, err = c.Get(ctx, path)
				wantErr(t, err, consul.ErrUnreadable)
			}
			_, err = c.EnsureCluster(ctx)
			wantErr(t, err, consul.ErrUnreadable)
			if st := c.Status(); !st.OK || !errors.Is(st.LastError, consul.ErrUnreadable) {
				t.Errorf("status is %+v", st)
			}
			failed := make(chan error, 100)
			stop := background(t, func(ctx context.Context) error {
				return c.WatchWith(ctx, "nodes", func(p []consul.Pair) { t.Errorf("watch delivered %v", p) }, func(err error) { failed <- err })
			})
			wantErr(t, next(t, "error", failed, 3*time.Second), consul.ErrUnreadable)
			wantErr(t, next(t, "second error", failed, 3*time.Second), consul.ErrUnreadable)
			stop()
		})
	}
}

func TestPartlyReadable(t *testing.T) {
	s, admin := guarded(t)
	ctx := t.Context()
	some := aclToken(s, "some", `
		key "weft/cluster" { policy = "read" }
		key "weft/nodes/n1" { policy = "read" }
		key_prefix "weft/recall/" { policy = "read" }`)
	c := client(t, consul.Config{Address: s.Address, Token: some})
	_, err := c.List(ctx, "leases/net") // hidden from this token
	wantErr(t, err, consul.ErrUnreadable)
	_, err = c.List(ctx, "networks") // empty, but it could not know
	wantErr(t, err, consul.ErrUnreadable)
	if _, err := c.Get(ctx, "nodes/n1"); err != nil {
		t.Error(err)
	}
	if pairs, err := c.List(ctx, "recall"); err != nil || len(pairs) > 0 {
		t.Errorf("an empty folder that may be read: %v, %v", pairs, err)
	}
	put(t, admin, "nodes/n2", "x") // one of two is hidden
	_, err = c.List(ctx, "nodes")
	wantErr(t, err, consul.ErrUnreadable)

	read := aclToken(s, "read", `key_prefix "weft/" { policy = "read" }`)
	c = client(t, consul.Config{Address: s.Address, Token: read})
	if pairs, err := c.List(ctx, "nodes"); err != nil || len(pairs) != 2 {
		t.Errorf("with read rights: %v, %v", pairs, err)
	}
	err = c.Txn(ctx, consul.Set("nodes/n1", nil))
	wantErr(t, err, os.ErrPermission)
	if err == nil || !strings.Contains(err.Error(), "write weft/nodes/n1: permission denied") {
		t.Errorf("write without rights says %v", err)
	}
}

func TestTokenFileIsReadAgain(t *testing.T) {
	s := consultest.Start(t, acls)
	file := filepath.Join(t.TempDir(), "token")
	c := client(t, consul.Config{Address: s.Address, TokenFile: file})
	_, err := c.EnsureCluster(t.Context())
	wantErr(t, err, consul.ErrUnreadable)
	if err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("missing token file says %v", err)
	}
	for _, step := range []struct {
		token string
		want  error
	}{{"nonsense", consul.ErrUnreadable}, {management + "\n", nil}, {"nonsense again", consul.ErrUnreadable}} {
		if err := os.WriteFile(file, []byte(step.token), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.EnsureCluster(t.Context()); !errors.Is(err, step.want) {
			t.Errorf("with token file %q: %v, want %v", step.token, err, step.want)
		}
	}
}
