package consul

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"

	"github.com/hashicorp/consul/api"
)

// FormatVersion is the layout of the KV folder that this code reads and writes.
const FormatVersion = 1

// Cluster is the sentinel: who can read it can read the folder.
type Cluster struct {
	ID     string `json:"id"` // 12 lower-case hexadecimal digits
	Format int    `json:"format"`
}

var clusterID = regexp.MustCompile(`^[0-9a-f]{12}$`)

// ParseCluster reads a sentinel. A newer format is an error: this code would misread the records.
func ParseCluster(value []byte) (Cluster, error) {
	var c Cluster
	if err := json.Unmarshal(value, &c); err != nil {
		return Cluster{}, fmt.Errorf("parse cluster record: %w", err)
	}
	if c.Format > FormatVersion {
		return Cluster{}, fmt.Errorf("parse cluster record: format %d is newer than %d, upgrade weft on this node", c.Format, FormatVersion)
	}
	if c.Format < 1 || !clusterID.MatchString(c.ID) {
		return Cluster{}, fmt.Errorf("parse cluster record: id %q, format %d make no sense", c.ID, c.Format)
	}
	return c, nil
}

// Cluster reads the sentinel: ErrUnreadable when it is missing, damaged, of a newer format or another cluster's.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	key := c.key(ClusterPath)
	pair, err := c.raw(ctx, key)
	if err != nil {
		return Cluster{}, err
	}
	return c.believe(key, pair)
}

// believe checks what was read of the sentinel.
func (c *Client) believe(key string, pair *api.KVPair) (Cluster, error) {
	if pair == nil {
		return Cluster{}, &Error{Op: "read", Key: key, Kind: ErrUnreadable, Said: "404",
			Hint: "the sentinel is missing: Consul was wiped or restored, or consul.prefix or consul.datacenter is wrong"}
	}
	got, err := ParseCluster(pair.Value)
	if err != nil {
		return Cluster{}, &Error{Op: "read", Key: key, Kind: ErrUnreadable, Cause: err}
	}
	if known := c.knownCluster(); known != "" && known != got.ID {
		return Cluster{}, &Error{Op: "read", Key: key, Kind: ErrUnreadable,
			Hint: fmt.Sprintf("Consul holds cluster %s, this node belongs to %s: Consul was wiped and made anew, or consul.address is wrong", got.ID, known)}
	}
	return got, nil
}

// WatchCluster watches the sentinel until ctx ends, then returns nil: failed is called with ErrUnreadable as soon as it
// is missing or foreign (Consul was wiped or restored: the time for RestoreCluster), with ErrUnavailable while Consul
// does not answer, and with nil at the first good answer after one. remade (may be nil) is called when the sentinel says
// the same but is another key than before: Consul was wiped, and another node was quicker to put the sentinel back.
// Watching folders does not replace it: see watch.go.
func (c *Client) WatchCluster(ctx context.Context, failed func(error), remade func()) error {
	key := c.key(ClusterPath)
	var created uint64
	poll := func(ctx context.Context, index uint64) (uint64, error) {
		var pair *api.KVPair
		next, err := c.block(ctx, key, c.needRead(), index, func(q *api.QueryOptions) (uint64, error) {
			p, meta, err := c.api.KV().Get(key, q)
			if err != nil {
				return 0, err
			}
			pair = p
			return meta.LastIndex, nil
		})
		if err != nil {
			return 0, err
		}
		if _, err = c.believe(key, pair); err != nil {
			_, err = c.Cluster(ctx) // a default read may be old just after an election
			return next, err
		}
		if created != 0 && created != pair.CreateIndex && remade != nil {
			remade()
		}
		created = pair.CreateIndex
		c.mu.Lock()
		c.made = pair.ModifyIndex
		c.mu.Unlock()
		return next, nil
	}
	return c.follow(ctx, poll, failed)
}

// EnsureCluster returns the id of the cluster, making the sentinel when the folder is empty. From then on this
// client belongs to that cluster: another id, or none, is ErrUnreadable.
func (c *Client) EnsureCluster(ctx context.Context) (id string, err error) {
	return c.RestoreCluster(ctx, c.knownCluster())
}

// RestoreCluster is EnsureCluster for a node that knows its cluster's id from before (empty: it does not): a missing
// sentinel is made again with that id, so that signatures made for it stay valid. Without a known id a folder that
// holds keys but no sentinel is refused with ErrUnreadable.
func (c *Client) RestoreCluster(ctx context.Context, known string) (id string, err error) {
	if known != "" {
		if !clusterID.MatchString(known) {
			return "", fmt.Errorf("restore cluster %q: not a cluster id", known)
		}
		c.setCluster(known)
	}
	for range 3 { // the loser of the race for the sentinel reads the winner's
		pair, err := c.raw(ctx, c.key(ClusterPath))
		if err != nil {
			return "", err
		}
		if pair != nil {
			got, err := c.Cluster(ctx)
			if err != nil {
				return "", err
			}
			c.setCluster(got.ID)
			return got.ID, nil
		}
		if err := c.makeCluster(ctx, known); err != nil && !errors.Is(err, ErrConflict) {
			return "", err
		}
	}
	return "", &Error{Op: "write", Key: c.key(ClusterPath), Kind: ErrConflict, Hint: "the sentinel comes and goes; is something deleting the folder?"}
}

func (c *Client) makeCluster(ctx context.Context, id string) error {
	if id == "" {
		if err := c.checkEmpty(ctx); err != nil {
			return err
		}
		var b [6]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		id = hex.EncodeToString(b[:])
	}
	value, err := encode(Cluster{ID: id, Format: FormatVersion})
	if err != nil {
		return err
	}
	return c.Txn(ctx, CAS(ClusterPath, value, 0))
}

// checkEmpty refuses a folder that has keys: a new sentinel in it would make every record's signature wrong.
func (c *Client) checkEmpty(ctx context.Context) error {
	var keys []string
	err := c.do(ctx, "list", c.key(""), c.needRead(), func(q *api.QueryOptions) (err error) {
		q.RequireConsistent = true
		keys, _, err = c.api.KV().Keys(c.key(""), "/", q)
		return err
	})
	if err != nil || len(keys) == 0 {
		return err
	}
	if slices.Contains(keys, c.key(ClusterPath)) {
		return ErrConflict // somebody else was quicker
	}
	return &Error{Op: "read", Key: c.key(ClusterPath), Kind: ErrUnreadable,
		Hint: fmt.Sprintf("the sentinel is missing, but the folder holds %s: a node of the cluster that runs puts it back; if none does, delete the folder", keys[0])}
}

// Acknowledge reads the sentinel and takes it for the present one: what Leases writes from now on is written for it. Call
// it before putting back what this node holds after Consul went back in time.
func (c *Client) Acknowledge(ctx context.Context) error {
	if _, err := c.Cluster(ctx); err != nil {
		return err
	}
	pair, err := c.raw(ctx, c.key(ClusterPath))
	if err != nil || pair == nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = pair.ModifyIndex
	return nil
}

// moved reports whether the sentinel is another one than WatchCluster saw last: Consul was wiped, and this node has not
// followed yet.
func (c *Client) moved(ctx context.Context) bool {
	c.mu.Lock()
	made := c.made
	c.mu.Unlock()
	if made == 0 {
		return false
	}
	pair, err := c.raw(ctx, c.key(ClusterPath))
	return err == nil && (pair == nil || pair.ModifyIndex != made)
}

func (c *Client) knownCluster() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cluster
}

func (c *Client) setCluster(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cluster = id
}

// encode is how values without a signature are written: pretty, for the eyes of people in the Consul UI.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode value: %w", err)
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// absent is the error for a key that is not there while the sentinel is.
func absent(key string) error { return &Error{Op: "read", Key: key, Kind: os.ErrNotExist} }
