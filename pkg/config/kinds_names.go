package config

import (
	"errors"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

var (
	nodeNameRE = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$`)
	// domainRE is the host name grammar of RFC 1123 section 2.1, lower case.
	domainRE  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
	kvPathRE  = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)
	catalogRE = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,30})?)?$`)
	// ifNameRE: IFNAMSIZ (linux/if.h) leaves 15 bytes.
	ifNameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,14}$`)
	// datacenterRE is Consul's own (agent/config/builder.go), which forces lower case later.
	datacenterRE = regexp.MustCompile(`^[A-Za-z0-9_-]*$`)
	hostRE       = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})$`)
)

// maxSocketPath is sizeof(sockaddr_un.sun_path) in linux/un.h less its closing NUL.
const maxSocketPath = 107

var (
	nodeName = checked("text", func(s string) error {
		if !nodeNameRE.MatchString(s) {
			return errors.New("is not a node name: at most 64 letters, digits, '.', '_' and '-', with a letter or digit at both ends")
		}
		return nil
	})

	socketPath = checked("an absolute path", func(s string) error {
		if err := required.check(s); err != nil {
			return err
		}
		if len(s) > maxSocketPath {
			return errors.New("is too long for a socket: at most " + strconv.Itoa(maxSocketPath) + " bytes")
		}
		return nil
	})

	advertise = checked("an address or an interface name", func(s string) error {
		if a, err := netip.ParseAddr(s); err == nil {
			if a.IsUnspecified() || a.IsMulticast() {
				return errors.New("is not an address of one host")
			}
			return nil
		}
		if s != "" && !ifNameRE.MatchString(s) {
			return errors.New("is not an address or an interface name")
		}
		return nil
	})

	domain = checked("a domain name", func(s string) error {
		if !domainRE.MatchString(s) || len(s) > 200 {
			return errors.New("is not a domain name: lower-case letters, digits, '-' and single dots between them")
		}
		return nil
	})

	kvPrefix = kind[string]{want: "text", shape: text, show: same, parse: func(s string) (string, error) {
		s = strings.TrimSuffix(s, "/") // "weft/" is how Consul shows it
		if !kvPathRE.MatchString(s) || len(s) > 100 {
			return s, errors.New(`is not a key prefix as "weft": letters, digits, '.', '_', '-' and single slashes between them`)
		}
		return s, nil
	}}

	catalogPrefix = checked("text", func(s string) error {
		if !catalogRE.MatchString(s) {
			return errors.New(`is not the start of a service name as "weft-": at most 31 lower-case letters, digits and '-'`)
		}
		return nil
	})

	consulAddress = checked("an address", func(s string) error {
		scheme, host, found := strings.Cut(s, "://")
		if found && scheme == "unix" {
			if !strings.HasPrefix(host, "/") || len(host) > maxSocketPath {
				return errors.New(`is not a socket as "unix:///run/consul.sock"`)
			}
			return nil
		}
		if !found {
			host = s
		} else if scheme != "http" && scheme != "https" {
			return errors.New("has the scheme " + strconv.Quote(scheme) + ", which is not http, https or unix")
		}
		return hostPort(host)
	})

	datacenter = checked("text", func(s string) error {
		if !datacenterRE.MatchString(s) {
			return errors.New("is not a datacenter's name: letters, digits, '-' and '_'")
		}
		return nil
	})

	serverName = checked("text", func(s string) error {
		if s != "" && !hostRE.MatchString(s) {
			return errors.New("is not a host name")
		}
		return nil
	})

	program = checked("text", func(s string) error {
		if strings.TrimSpace(s) == "" {
			return errors.New("is not a program")
		}
		return nil
	})

	upstream = kind[netip.AddrPort]{want: "addresses", shape: text, show: showUpstream, parse: parseUpstream}

	// optionalServer is an address with its port, or nothing.
	optionalServer = kind[netip.AddrPort]{want: "an address with a port", shape: text, show: showServer, parse: parseServer}
)

func parseServer(s string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 || ap.Addr().IsMulticast() {
		return ap, errors.New(`is not an address with a port as "127.0.0.1:8600"`)
	}
	return ap, nil
}

func showServer(ap netip.AddrPort) string {
	if !ap.IsValid() {
		return ""
	}
	return ap.String()
}

// check runs a kind's parser for its verdict.
func (k kind[T]) check(s string) error {
	_, err := k.parse(s)
	return err
}

func hostPort(s string) error {
	host, p, err := net.SplitHostPort(s)
	if err != nil || port.check(p) != nil {
		return errors.New(`is not an address as "127.0.0.1:8500", "https://consul.example.org:8501" or "unix:///run/consul.sock"`)
	}
	if _, err := netip.ParseAddr(host); err != nil && !hostRE.MatchString(host) {
		return errors.New("has no usable host before the port")
	}
	return nil
}

// dnsPort is RFC 1035 section 4.2.
const dnsPort = 53

func parseUpstream(s string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		var a netip.Addr
		if a, err = netip.ParseAddr(s); err == nil {
			ap = netip.AddrPortFrom(a, dnsPort)
		}
	}
	switch {
	case err != nil:
		return ap, errors.New(`is not an address as "192.0.2.53" or "192.0.2.53:5353"`)
	case ap.Port() == 0 || ap.Addr().IsUnspecified() || ap.Addr().IsMulticast():
		return ap, errors.New("is not an address that can be asked")
	}
	return ap, nil
}

func showUpstream(ap netip.AddrPort) string {
	if ap.Port() == dnsPort {
		return ap.Addr().String()
	}
	return ap.String()
}
