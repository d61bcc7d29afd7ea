package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	// DefaultAddress is the Consul agent of this host.
	DefaultAddress = "127.0.0.1:8500"
	// DefaultPrefix is the KV folder that holds everything of weft.
	DefaultPrefix = "weft"
	// DefaultCatalogPrefix starts the catalog names of service instances, so that a policy can confine them.
	DefaultCatalogPrefix = "weft-"
)

// Config says how to reach Consul. It never prints its token.
type Config struct {
	// Address is host:port, http://..., https://... or unix:///path; empty means DefaultAddress.
	Address string
	// Token is the ACL token; empty means the anonymous token. TokenFile, when set, wins and is read again whenever
	// the file changes.
	Token     string `json:"-"`
	TokenFile string
	// Datacenter to ask; empty means that of the Consul agent.
	Datacenter string
	// Prefix is the KV folder without slashes at its ends; empty means DefaultPrefix.
	Prefix string
	// CatalogPrefix starts the names of service instances. It is taken as given: empty means plain names.
	CatalogPrefix string
	TLS           TLS
	// Log may be nil: silence.
	Log *slog.Logger
}

// TLS says how to trust Consul's HTTPS listener and how to present oneself to it. The zero value uses the system's
// roots and no client certificate. Anything set here makes an address without a scheme mean https.
type TLS struct {
	CAFile, CAPath    string
	CertFile, KeyFile string
	ServerName        string
	Insecure          bool
}

// Format prints c without its token, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, c.describe()) }

// LogValue prints c without its token.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.describe()) }

func (c Config) describe() string {
	token := "none"
	switch {
	case c.TokenFile != "":
		token = "from " + c.TokenFile
	case c.Token != "":
		token = "(redacted)"
	}
	return fmt.Sprintf("consul{address %s, prefix %s, datacenter %q, token %s}", c.Address, c.Prefix, c.Datacenter, token)
}

func (c Config) withDefaults() Config {
	if c.Address == "" {
		c.Address = DefaultAddress
	}
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate reports every fault of a config that has its defaults.
func (c Config) validate() error {
	var errs []error
	if err := checkAddress(c.Address); err != nil {
		errs = append(errs, err)
	}
	if c.Prefix != strings.Trim(c.Prefix, "/") || strings.Contains(c.Prefix, "//") || strings.ContainsAny(c.Prefix, "\\?#% \t\n") {
		errs = append(errs, fmt.Errorf("check prefix %q: want a KV folder without slashes at its ends, such as %q", c.Prefix, DefaultPrefix))
	}
	if strings.Contains(c.CatalogPrefix, "/") {
		errs = append(errs, fmt.Errorf("check catalog prefix %q: want the start of a service name, such as %q", c.CatalogPrefix, DefaultCatalogPrefix))
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		errs = append(errs, errors.New("check TLS files: a client certificate needs both its certificate and its key file"))
	}
	return errors.Join(errs...)
}

func checkAddress(a string) error {
	scheme, rest, found := strings.Cut(a, "://")
	if !found {
		scheme, rest = "http", a
	}
	switch scheme {
	case "unix":
		if !strings.HasPrefix(rest, "/") {
			return fmt.Errorf("check address %q: want unix:///absolute/path", a)
		}
		return nil
	case "http", "https":
		u, err := url.Parse(scheme + "://" + rest)
		if err != nil || u.Hostname() == "" || u.Port() == "" || u.User != nil {
			return fmt.Errorf("check address %q: want host:port, http(s)://host:port or unix:///path", a)
		}
		return nil
	}
	return fmt.Errorf("check address %q: unknown scheme %q, want http, https or unix", a, scheme)
}

// apiClient builds the API client. Every setting is given, so that CONSUL_* variables of the environment decide
// nothing behind the operator's back; the token is put into each request by withToken.
func (c Config) apiClient(token func() (string, error)) (*api.Client, *http.Transport, error) {
	dialer := &net.Dialer{
		Timeout: 5 * time.Second,
		// A blocking query waits for minutes without sending: only keepalives tell that the far side is gone.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	transport := &http.Transport{
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConns:        64,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
	}
	conf := api.TLSConfig{
		Address: c.TLS.ServerName, CAFile: c.TLS.CAFile, CAPath: c.TLS.CAPath,
		CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, InsecureSkipVerify: c.TLS.Insecure,
	}
	httpClient, err := api.NewHttpClient(transport, conf)
	if err != nil {
		return nil, nil, fmt.Errorf("set up TLS to consul: %w", err)
	}
	scheme := "http"
	if c.TLS != (TLS{}) {
		scheme = "https"
	}
	address := c.Address
	if path, ok := strings.CutPrefix(c.Address, "unix://"); ok {
		dial := *dialer
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial.DialContext(ctx, "unix", path) }
		address = "localhost"
	}
	httpClient.Transport = withToken{next: transport, token: token}
	client, err := api.NewClient(&api.Config{
		Address: address, Scheme: scheme, HttpClient: httpClient, Transport: transport, Token: "set per request",
	})
	if err != nil {
		return nil, nil, fmt.Errorf("set up consul client: %w", err)
	}
	return client, transport, nil
}
