package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// rule is a condition over the effective values. A rule whose keys have errors already is skipped.
type rule struct {
	// keys that take part; the error names the first that is not a default.
	keys []string
	// broken says what is wrong, or nothing; blamed is the key the message is about.
	broken func(c *Config, blamed string) string
}

var rules = []rule{
	{[]string{"wireguard.ports"}, func(c *Config, _ string) string {
		switch p := c.WireGuard.Ports; {
		case len(p) != 2:
			return fmt.Sprintf("want exactly 2 port numbers, not %d: a new key generation listens beside the old one", len(p))
		case p[0] == p[1]:
			return fmt.Sprintf("want 2 different port numbers, not %d twice", p[0])
		}
		return ""
	}},
	{[]string{"vxlan.port", "wireguard.ports"}, func(c *Config, _ string) string {
		for _, p := range c.WireGuard.Ports {
			if p == c.VXLAN.Port {
				return fmt.Sprintf("vxlan.port and wireguard.ports both use port %d", p)
			}
		}
		return ""
	}},
	{[]string{"pools"}, func(c *Config, _ string) string {
		if len(c.Pools) == 0 {
			return "want at least one range"
		}
		for i, p := range c.Pools {
			for _, q := range c.Pools[:i] {
				if p.Overlaps(q) {
					return fmt.Sprintf("%s overlaps %s", p, q)
				}
			}
		}
		return ""
	}},
	{[]string{"pool_size", "pools"}, func(c *Config, _ string) string {
		for _, p := range c.Pools {
			if p.Bits() > c.PoolSize {
				return fmt.Sprintf("pool %s is smaller than one subnet of pool_size %d", p, c.PoolSize)
			}
		}
		return ""
	}},
	{[]string{"pools", "vtep_pool"}, func(c *Config, blamed string) string {
		return overlap(blamed, "pools", c.Pools, "vtep_pool", c.VTEPPool)
	}},
	{[]string{"pools", "egress.pool"}, func(c *Config, blamed string) string {
		return overlap(blamed, "pools", c.Pools, "egress.pool", c.Egress.Pool)
	}},
	{[]string{"vtep_pool", "egress.pool"}, func(c *Config, blamed string) string {
		return overlap(blamed, "vtep_pool", []netip.Prefix{c.VTEPPool}, "egress.pool", c.Egress.Pool)
	}},
	{[]string{"trust.mode", "trust.signers"}, func(c *Config, _ string) string {
		if c.Trust.Mode == TrustLocked && len(c.Trust.Signers) == 0 {
			return "locked needs trust.signers: the public keys that `weft trust init` printed; two at least, so that one can be lost"
		}
		return ""
	}},
	{[]string{"consul.token_file", "consul.token"}, func(c *Config, _ string) string {
		if c.Consul.TokenFile != "" && !c.Consul.Token.IsZero() {
			return "consul.token and consul.token_file are both set; keep one"
		}
		return ""
	}},
	{[]string{"consul.tls.cert_file", "consul.tls.key_file"}, func(c *Config, _ string) string {
		switch t := c.Consul.TLS; {
		case t.CertFile != "" && t.KeyFile == "":
			return "needs consul.tls.key_file"
		case t.CertFile == "" && t.KeyFile != "":
			return "needs consul.tls.cert_file"
		}
		return ""
	}},
	{[]string{"consul.address"}, func(c *Config, _ string) string {
		if scheme, _, given := strings.Cut(c.Consul.Address, "://"); given && scheme != "https" && c.Consul.TLS != (TLS{}) {
			return fmt.Sprintf("consul.tls is set, but %q is not https", c.Consul.Address)
		}
		return ""
	}},
}

// overlap words the message from the blamed key's side.
func overlap(blamed, listKey string, list []netip.Prefix, oneKey string, one netip.Prefix) string {
	for _, p := range list {
		switch {
		case !p.Overlaps(one):
		case blamed == oneKey:
			return fmt.Sprintf("%s overlaps %s %s", one, listKey, p)
		default:
			return fmt.Sprintf("%s overlaps %s %s", p, oneKey, one)
		}
	}
	return ""
}

func (l *loader) checkRules() {
	if l.unread { // what it would have set is not known
		return
	}
	for _, r := range rules {
		if err := l.judge(r); err != nil {
			l.errs = append(l.errs, err)
			for _, key := range r.keys {
				l.broken[key] = true
			}
		}
	}
}

// judge applies one rule.
func (l *loader) judge(r rule) *Error {
	blamed := ""
	for _, key := range r.keys {
		if l.broken[key] {
			return nil
		}
		if blamed == "" && l.out.Sources[key].Kind != FromDefault {
			blamed = key
		}
	}
	if blamed == "" {
		blamed = r.keys[0]
	}
	message := r.broken(&l.out.Config, blamed)
	if message == "" {
		return nil
	}
	return &Error{Source: l.out.Sources[blamed], Key: blamed, Message: message}
}
