package consul

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"
)

// Pair is one key with its value.
type Pair struct {
	// Path is relative to the prefix, without a leading slash.
	Path  string
	Value []byte
	// Version guards updates (Consul's ModifyIndex), Created orders keys by age (CreateIndex).
	Version uint64
	Created uint64
}

// Get reads one key, from the leader, checked (Consul's consistent mode). Errors: os.ErrNotExist, ErrUnreadable,
// ErrUnavailable.
func (c *Client) Get(ctx context.Context, path string) (Pair, error) {
	key := c.key(path)
	pair, err := c.raw(ctx, key)
	if err != nil {
		return Pair{}, err
	}
	if pair == nil {
		if _, err := c.Cluster(ctx); err != nil {
			return Pair{}, fmt.Errorf("read %s: absent, but so may be everything: %w", key, err)
		}
		return Pair{}, absent(key)
	}
	return c.pair(pair), nil
}

// List reads all keys below the folder dir ("" means the whole prefix), ordered by path, in consistent mode. An empty
// list is returned only when the sentinel is readable and no key was hidden by ACLs. Errors: ErrUnreadable,
// ErrUnavailable.
func (c *Client) List(ctx context.Context, dir string) ([]Pair, error) {
	key := c.dirKey(dir)
	var pairs []Pair
	err := c.do(ctx, "list", key, c.needRead(), func(q *api.QueryOptions) (err error) {
		q.RequireConsistent = true
		pairs, _, err = c.list(key, q)
		return err
	})
	if err != nil || len(pairs) > 0 {
		return pairs, err
	}
	return pairs, c.checkReadable(ctx, key)
}

// list is one raw answer. Consul hides what the token may not see and says so in a header, except to anonymous tokens.
func (c *Client) list(key string, q *api.QueryOptions) ([]Pair, uint64, error) {
	entries, meta, err := c.api.KV().List(key, q)
	if err != nil {
		return nil, 0, err
	}
	if meta.ResultsFilteredByACLs {
		return nil, 0, api.StatusError{Code: 403, Body: "some results were filtered by ACLs"}
	}
	pairs := make([]Pair, 0, len(entries))
	for _, e := range entries {
		if e.Key != key { // a UI makes the folder itself a key
			pairs = append(pairs, c.pair(e))
		}
	}
	slices.SortFunc(pairs, func(a, b Pair) int { return cmp.Compare(a.Path, b.Path) })
	return pairs, meta.LastIndex, nil
}

// checkReadable tells an empty folder from one that may not be read: the sentinel must be there, and reading the
// folder's own key must not be denied (listing a denied folder answers 404, reading a denied key 403).
func (c *Client) checkReadable(ctx context.Context, dirKey string) error {
	if _, err := c.Cluster(ctx); err != nil {
		return fmt.Errorf("list %s: empty, but so may be everything: %w", dirKey, err)
	}
	_, err := c.raw(ctx, dirKey)
	return err
}

// raw reads one key; nil means 404.
func (c *Client) raw(ctx context.Context, key string) (*api.KVPair, error) {
	var pair *api.KVPair
	err := c.do(ctx, "read", key, c.needRead(), func(q *api.QueryOptions) (err error) {
		q.RequireConsistent = true
		pair, _, err = c.api.KV().Get(key, q)
		return err
	})
	return pair, err
}

// key is the full key of a path.
func (c *Client) key(path string) string { return c.cfg.Prefix + "/" + path }

// dirKey is the full key of a folder, with the slash that keeps "net" from matching "net2".
func (c *Client) dirKey(dir string) string {
	if dir = strings.Trim(dir, "/"); dir == "" {
		return c.cfg.Prefix + "/"
	}
	return c.key(dir) + "/"
}

func (c *Client) pair(p *api.KVPair) Pair {
	return Pair{Path: strings.TrimPrefix(p.Key, c.cfg.Prefix+"/"), Value: p.Value, Version: p.ModifyIndex, Created: p.CreateIndex}
}

func (c *Client) needRead() string  { return fmt.Sprintf(`key_prefix "%s/" read`, c.cfg.Prefix) }
func (c *Client) needWrite() string { return fmt.Sprintf(`key_prefix "%s/..." write`, c.cfg.Prefix) }
