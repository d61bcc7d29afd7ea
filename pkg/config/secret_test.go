package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecret(t *testing.T) {
	const hidden = "s3cr3t"
	type wrapped struct{ inner Secret } // fmt reads it by reflection, without asking Format
	s := NewSecret(hidden)
	c := Config{Consul: Consul{Token: s}}
	var out bytes.Buffer
	for _, verb := range strings.Split("v +v #v s q x X d t b o O e g c U T p", " ") {
		for _, v := range []any{s, &s, []Secret{s}, map[string]Secret{"a": s}, c, &c, wrapped{s}, &wrapped{s}} {
			fmt.Fprintf(&out, "%"+verb+"\n", v)
		}
	}
	for _, v := range []any{s, &s, c, wrapped{s}} {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(data)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	for _, form := range []string{hidden, fmt.Sprintf("%x", hidden), fmt.Sprintf("%X", hidden), fmt.Sprint([]byte(hidden))} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q is in the output", form)
		}
	}
	diff(t, redacted, fmt.Sprint(s))
	diff(t, "", fmt.Sprint(Secret{}))
	if s.Reveal() != hidden || s.IsZero() || !(Secret{}).IsZero() || !NewSecret("").IsZero() {
		t.Error("Reveal or IsZero")
	}
	if !s.Equal(NewSecret(hidden)) || s.Equal(NewSecret("s3cr3T")) || s.Equal(Secret{}) {
		t.Error("Equal")
	}
}

func TestResolveToken(t *testing.T) {
	dir := write(t, map[string]string{"token": " s3cr3t\n", "empty": "\n"})
	tests := []struct {
		name    string
		consul  Consul
		want    string
		wantErr string
	}{
		{"none", Consul{}, "", ""},
		{"token", Consul{Token: NewSecret("a")}, "a", ""},
		{"file", Consul{TokenFile: filepath.Join(dir, "token")}, "s3cr3t", ""},
		{"empty file", Consul{TokenFile: filepath.Join(dir, "empty")}, "", "read consul.token_file: DIR/empty is empty"},
		{"no file", Consul{TokenFile: filepath.Join(dir, "none")}, "", "read consul.token_file: open DIR/none: no such file or directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.consul.ResolveToken()
			diff(t, tt.want, got.Reveal())
			diff(t, tt.wantErr, strings.Join(lines(err, dir), "\n"))
		})
	}
}

func TestWarnings(t *testing.T) {
	type files = map[string]string
	tests := []struct {
		name    string
		files   files
		public  string
		environ []string
		want    []string
	}{
		{name: "token others can read", files: files{"weft.yaml": "consul: {token: s3cr3t}"}, public: "weft.yaml",
			want: []string{"DIR/weft.yaml: holds consul.token and everybody can read it: chmod o-r DIR/weft.yaml"}},
		{name: "no token in it", files: files{"weft.yaml": "consul: {prefix: a}"}, public: "weft.yaml"},
		{name: "private", files: files{"weft.yaml": "consul: {token: s3cr3t}"}},
		{name: "missing token file", environ: []string{"WEFT_CONSUL_TOKEN_FILE=DIR/none"},
			want: []string{"WEFT_CONSUL_TOKEN_FILE: consul.token_file: DIR/none: stat: no such file or directory"}},
		{name: "public token file", files: files{"t": "x"}, public: "t", environ: []string{"WEFT_CONSUL_TOKEN_FILE=DIR/t"},
			want: []string{"WEFT_CONSUL_TOKEN_FILE: consul.token_file: everybody can read DIR/t: chmod o-r DIR/t"}},
		{name: "stray variable", environ: []string{"WEFT_SERVICE_HOST=192.0.2.1", configEnv + "="},
			want: []string{"WEFT_SERVICE_HOST: sets nothing: no key has this variable"}},
		{name: "stray file", files: files{"conf.d/weft.conf": ""},
			want: []string{"DIR/conf.d/weft.conf: not read: its name does not end in .yaml, .yml, .toml, .json or .hcl"}},
		{name: "no verification", environ: []string{"WEFT_CONSUL_TLS_INSECURE_SKIP_VERIFY=true"},
			want: []string{"WEFT_CONSUL_TLS_INSECURE_SKIP_VERIFY: consul.tls.insecure_skip_verify: whoever stands between can read and change what Consul says"}},
		{name: "no name servers", files: files{"resolv.conf": "search example.org\n"},
			want: []string{"default (/etc/resolv.conf): dns.upstreams: is empty: only weft's own names will resolve"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.files == nil {
				tt.files = files{}
			}
			if tt.files["resolv.conf"] == "" {
				tt.files["resolv.conf"] = "nameserver 192.0.2.53\n"
			}
			dir := write(t, tt.files)
			if tt.public != "" {
				if err := os.Chmod(filepath.Join(dir, tt.public), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			o := options(dir)
			for _, v := range tt.environ {
				o.Environ = append(o.Environ, strings.Replace(v, "DIR", dir, 1))
			}
			got := lines(textError(strings.Join(mustLoad(t, o).Warnings, "\n")), dir)
			if tt.want == nil {
				tt.want = []string{""}
			}
			diff(t, tt.want, got)
		})
	}
}
