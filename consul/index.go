package consul

import (
	"context"

	"github.com/hashicorp/consul/api"
)

// indexPath is a key that never exists: its answer carries the index of the whole KV store.
const indexPath = ".index"

// KVIndex is the index of the newest change in the KV store, of whatever key. It only grows, unless a snapshot was
// restored. The read costs the server nothing that grows with the store.
func (c *Client) KVIndex(ctx context.Context) (uint64, error) {
	var index uint64
	err := c.do(ctx, "read", c.key(indexPath), c.needRead(), func(q *api.QueryOptions) error {
		_, meta, err := c.api.KV().Get(c.key(indexPath), q)
		if err == nil {
			index = meta.LastIndex
		}
		return err
	})
	return index, err
}
