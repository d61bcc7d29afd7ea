package config

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// warn looks at what is allowed but will likely surprise.
func (l *loader) warn() {
	c := &l.out.Config
	add := func(key, message string) {
		l.out.Warnings = append(l.out.Warnings, oneLine(l.out.Sources[key].place()+": "+key+": "+message))
	}
	t := c.Consul.TLS
	for _, f := range []struct{ key, path string }{
		{"consul.token_file", c.Consul.TokenFile}, {"consul.tls.ca_file", t.CAFile}, {"consul.tls.ca_path", t.CAPath},
		{"consul.tls.cert_file", t.CertFile}, {"consul.tls.key_file", t.KeyFile},
	} {
		if f.path == "" {
			continue
		}
		info, err := os.Stat(f.path)
		if err != nil {
			add(f.key, fileError(f.path, err).Error())
			continue
		}
		if (f.key == "consul.token_file" || f.key == "consul.tls.key_file") && info.Mode().Perm()&0o004 != 0 {
			add(f.key, fmt.Sprintf("everybody can read %s: chmod o-r %[1]s", f.path))
		}
	}
	if t.InsecureSkipVerify {
		add("consul.tls.insecure_skip_verify", "whoever stands between can read and change what Consul says")
	}
	if len(c.DNS.Upstreams) == 0 {
		add("dns.upstreams", "is empty: only weft's own names will resolve")
	}
}

// maxNameservers is MAXNS of resolv.h: the resolver uses no more either.
const maxNameservers = 3

// systemdResolv lists the servers that systemd-resolved itself asks (systemd-resolved.service(8)).
const systemdResolv = "/run/systemd/resolve/resolv.conf"

// nameservers reads the name servers of a resolv.conf(5); lines it does not understand are passed over, as the resolver
// does. Where only systemd-resolved's stub is named, its own servers from the file real stand instead: the stub may be
// told to ask weft.
func nameservers(path, real string) ([]string, error) {
	data, _, err := readFile(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	servers := parseResolvConf(data)
	if len(servers) == 0 || slices.ContainsFunc(servers, func(s string) bool { return s != "127.0.0.53" && s != "127.0.0.54" }) {
		return servers, nil
	}
	data, _, err = readFile(real)
	if err != nil {
		return servers, nil // the stub answers too
	}
	if behind := parseResolvConf(data); len(behind) > 0 {
		return behind, nil
	}
	return servers, nil
}

func parseResolvConf(data []byte) []string {
	var servers []string
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" || len(servers) == maxNameservers {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil && upstream.check(a.String()) == nil {
			servers = append(servers, a.String())
		}
	}
	return servers
}
