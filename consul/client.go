package consul

import (
	"context"
	"errors"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// requestTimeout bounds every request that does not wait for news (monotonic clock of this host).
const requestTimeout = 10 * time.Second

// Client talks to one Consul. It is safe for concurrent use and starts no goroutines of its own.
type Client struct {
	cfg       Config
	api       *api.Client
	transport *http.Transport

	mu      sync.Mutex
	status  Status
	back    chan struct{} // closed when Consul is back
	prober  bool          // a failing watch has taken the quick retries upon itself
	made    uint64        // version of the sentinel that WatchCluster saw last, 0 for none
	cluster string        // id that this client belongs to, once known
	agent   *AgentService // what RegisterAgent registered last
}

// Status says how the exchange with Consul goes, for `weft status`. Times are wall-clock times of this host.
type Status struct {
	Address string
	// OK says that the last request was answered, be it with a refusal.
	OK          bool
	LastContact time.Time // last answer, zero when there was none yet
	// LastError is the last failure, also of the past: compare LastErrorAt with LastContact. Nil when there was none.
	LastError   error
	LastErrorAt time.Time
}

// New validates cfg and prepares a client. It does not connect; a token file must be readable by the first request.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	client, transport, err := cfg.apiClient(cfg.tokenSource())
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, api: client, transport: transport,
		status: Status{Address: cfg.Address}, back: make(chan struct{}),
	}
	return c, nil
}

// Close drops idle connections. Requests that run are ended by their contexts.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Prefix is the KV folder, without slashes at its ends.
func (c *Client) Prefix() string { return c.cfg.Prefix }

// CatalogPrefix starts the catalog names of service instances.
func (c *Client) CatalogPrefix() string { return c.cfg.CatalogPrefix }

// Status returns how the exchange goes.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// do runs one request under requestTimeout and records how it went.
func (c *Client) do(ctx context.Context, op, key, need string, f func(*api.QueryOptions) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.exchange(ctx, op, key, need, f)
}

// exchange is do for requests that bound themselves.
func (c *Client) exchange(ctx context.Context, op, key, need string, f func(*api.QueryOptions) error) error {
	q := (&api.QueryOptions{Datacenter: c.cfg.Datacenter}).WithContext(ctx)
	err := translate(op, key, need, f(q))
	if !errors.Is(err, context.Canceled) { // our own giving up says nothing about Consul
		c.note(err)
	}
	return err
}

// note records the outcome of a request and wakes those who wait for Consul to come back.
func (c *Client) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	wasOK := c.status.OK
	c.status.OK = !errors.Is(err, ErrUnavailable)
	if c.status.OK {
		c.status.LastContact = now
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrConflict) {
		c.status.LastError, c.status.LastErrorAt = err, now
	}
	if c.status.OK && !wasOK {
		c.wake()
	}
}

// wake ends the waiting of failed watches. c.mu is held.
func (c *Client) wake() {
	close(c.back)
	c.back = make(chan struct{})
}
