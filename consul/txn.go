package consul

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/consul/api"
)

const (
	// MaxTxnOps is how many operations one transaction may have: Consul's documented limit (its code of 1.20 allows
	// 128, agent/txn_endpoint.go).
	MaxTxnOps = 64
	// MaxTxnBytes is how large a transaction's body may become after base64; Consul's own limit is 512 KiB (txn_max_req_len).
	MaxTxnBytes = 500 << 10
	// opOverhead is what one operation costs in JSON beside its key and value.
	opOverhead = 160
)

// Op is one operation of a transaction; make it with the functions below.
type Op struct {
	verb    api.KVOp
	path    string
	value   []byte
	version uint64
}

// Set writes a key whatever is there.
func Set(path string, value []byte) Op { return Op{verb: api.KVSet, path: path, value: value} }

// CAS writes a key if its version is still that; version 0 means: only if it does not exist.
func CAS(path string, value []byte, version uint64) Op {
	return Op{verb: api.KVCAS, path: path, value: value, version: version}
}

// Delete removes a key; an absent one is fine.
func Delete(path string) Op { return Op{verb: api.KVDelete, path: path} }

// DeleteCAS removes a key if its version is still that.
func DeleteCAS(path string, version uint64) Op {
	return Op{verb: api.KVDeleteCAS, path: path, version: version}
}

// CheckNotExists fails the transaction if the key exists.
func CheckNotExists(path string) Op { return Op{verb: api.KVCheckNotExists, path: path} }

// CheckIndex fails the transaction unless the key exists with that version.
func CheckIndex(path string, version uint64) Op {
	return Op{verb: api.KVCheckIndex, path: path, version: version}
}

// checkSentinel fails the transaction when the folder was wiped: nothing new is written before the sentinel is back, and
// before this node knows that it was away.
func (c *Client) checkSentinel() Op {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made != 0 {
		return CheckIndex(ClusterPath, c.made)
	}
	return Op{verb: api.KVGet, path: ClusterPath}
}

// Txn does all operations or none. Errors: ErrConflict (a CAS or check failed; nothing was written), os.ErrPermission,
// ErrUnavailable (the outcome is not known), or a plain error when it is too large to be sent.
func (c *Client) Txn(ctx context.Context, ops ...Op) error {
	_, err := c.TxnPairs(ctx, ops...)
	return err
}

// TxnPairs is Txn that also returns, for each operation that wrote a key, the pair with its new Version and Created
// (without value); other operations give a Pair with nothing but the path.
func (c *Client) TxnPairs(ctx context.Context, ops ...Op) ([]Pair, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	subject := c.key(ops[0].path)
	if len(ops) > 1 {
		subject += fmt.Sprintf(" and %d more", len(ops)-1)
	}
	if err := checkSize(ops); err != nil {
		return nil, fmt.Errorf("write %s: %w", subject, err)
	}
	req := make(api.TxnOps, len(ops))
	for i, op := range ops {
		req[i] = &api.TxnOp{KV: &api.KVTxnOp{Verb: op.verb, Key: c.key(op.path), Value: op.value, Index: op.version}}
	}
	var (
		ok   bool
		resp *api.TxnResponse
	)
	err := c.do(ctx, "write", subject, c.needWrite(), func(q *api.QueryOptions) (err error) {
		ok, resp, _, err = c.api.Txn().Txn(req, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, c.rolledBack(ops, resp.Errors)
	}
	return c.written(ops, resp.Results), nil
}

func checkSize(ops []Op) error {
	if len(ops) > MaxTxnOps {
		return fmt.Errorf("transaction of %d operations: at most %d are allowed", len(ops), MaxTxnOps)
	}
	size := 0
	for _, op := range ops {
		size += base64.StdEncoding.EncodedLen(len(op.value)) + len(op.path) + opOverhead
	}
	if size > MaxTxnBytes {
		return fmt.Errorf("transaction of %d KiB after base64: at most %d are allowed", size>>10, MaxTxnBytes>>10)
	}
	return nil
}

// rolledBack says why a transaction failed: a refusal wins over a missing sentinel, that over a conflict.
func (c *Client) rolledBack(ops []Op, errs api.TxnErrors) error {
	out := &Error{Op: "write", Key: c.key(ops[0].path), Kind: ErrConflict}
	for _, e := range errs {
		key := c.key(ops[0].path)
		op := Op{}
		if e.OpIndex >= 0 && e.OpIndex < len(ops) {
			op = ops[e.OpIndex]
			key = c.key(op.path)
		}
		switch {
		case isDenied(e.What):
			return &Error{Op: "write", Key: key, Kind: os.ErrPermission, Said: e.What, Hint: "the token needs " + c.needWrite()}
		case op.verb == api.KVGet:
			out = &Error{Op: "write", Key: c.key(ops[0].path), Kind: ErrUnreadable, Said: e.What,
				Hint: "the sentinel is missing: Consul was wiped or restored"}
		case errors.Is(out.Kind, ErrConflict) && out.Said == "":
			out.Key, out.Said = key, e.What
		}
	}
	return out
}

func (c *Client) written(ops []Op, results api.TxnResults) []Pair {
	byKey := map[string]*api.KVPair{}
	for _, r := range results {
		if r != nil && r.KV != nil {
			byKey[r.KV.Key] = r.KV
		}
	}
	out := make([]Pair, len(ops))
	for i, op := range ops {
		out[i].Path = strings.TrimPrefix(op.path, "/")
		if kv := byKey[c.key(op.path)]; kv != nil && (op.verb == api.KVSet || op.verb == api.KVCAS) {
			out[i].Version, out[i].Created = kv.ModifyIndex, kv.CreateIndex
		}
	}
	return out
}
