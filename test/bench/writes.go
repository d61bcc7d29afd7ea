package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"weft/pkg/lab"
)

const (
	writesEndpoints = 20
	kvIdleWindow    = 60 * time.Second
	// rest is until an attach has had all its consequences: a refilled spare, a pass that verifies.
	rest = 4 * time.Second
)

// ledgerMark is the state of Consul and of n1's loop at one moment.
type ledgerMark struct {
	at     time.Time
	raft   uint64 // last index of the log: every write to Consul, also its own, is one entry
	kv     uint64 // index of weft/: it moves with every write or removal below
	passes uint64
}

func measureWrites(ctx context.Context, b *bench) error {
	return b.inLab(ctx, 3, func(s *stage) error {
		n, err := s.network(true)
		if err != nil {
			return err
		}
		if _, err := s.resident(s.n2(), n.Name, "there"); err != nil {
			return err
		}
		if _, err := s.resident(s.n1(), n.Name, "here"); err != nil {
			return err
		}
		background, err := s.between(ctx, func() error { return s.settle(ctx, 20*time.Second) })
		if err != nil {
			return err
		}
		attach, err := s.between(ctx, func() error {
			if _, err := s.hold(s.n1(), n.Name, "", writesEndpoints); err != nil {
				return err
			}
			return s.settle(ctx, rest)
		})
		if err != nil {
			return err
		}
		s.say("  %d endpoints attached, now %.0f s idle", writesEndpoints, kvIdleWindow.Seconds())
		idle, err := s.between(ctx, func() error { return s.settle(ctx, kvIdleWindow) })
		if err != nil {
			return err
		}
		s.writeRows(background, attach, idle)
		return nil
	})
}

// delta is what moved between two marks.
type delta struct {
	took         time.Duration
	raft, passes float64
	kv           uint64
}

// perSecond is the rate of log entries.
func (d delta) perSecond() float64 { return d.raft / d.took.Seconds() }

func (s *stage) between(ctx context.Context, f func() error) (d delta, err error) {
	before, err := s.mark(ctx)
	if err != nil {
		return d, err
	}
	if err := f(); err != nil {
		return d, err
	}
	after, err := s.mark(ctx)
	if err != nil {
		return d, err
	}
	return delta{after.at.Sub(before.at), float64(after.raft - before.raft), float64(after.passes - before.passes), after.kv - before.kv}, nil
}

func (s *stage) writeRows(background, attach, idle delta) {
	r := &s.report
	own := min(background.perSecond(), idle.perSecond()) // Consul's own: coordinates, sessions, autopilot
	r.add("writes", fmt.Sprintf("Consul log entries per attach (mean of %d)", writesEndpoints), "", max(0, attach.raft-own*attach.took.Seconds())/writesEndpoints)
	r.add("writes", fmt.Sprintf("passes per attach (mean of %d)", writesEndpoints), "", attach.passes/writesEndpoints)
	moved := 0.0
	if idle.kv != 0 {
		moved = float64(idle.kv)
	}
	r.add("writes", fmt.Sprintf("idle %.0f s: index of weft/ moved by", kvIdleWindow.Seconds()), "", moved).zero()
	r.add("writes", "idle: Consul's own log entries", "1/s", idle.perSecond())
}

func (s *stage) mark(ctx context.Context) (m ledgerMark, err error) {
	var self struct {
		Stats struct {
			Raft struct {
				LastLogIndex string `json:"last_log_index"`
			} `json:"raft"`
		} `json:"Stats"`
	}
	if err = s.lab.ConsulGet(ctx, lab.Consul, "/v1/agent/self", &self); err != nil {
		return m, err
	}
	if m.raft, err = strconv.ParseUint(self.Stats.Raft.LastLogIndex, 10, 64); err != nil {
		return m, fmt.Errorf("read Consul's log index: %w", err)
	}
	if m.kv, err = s.kvIndex(ctx); err != nil {
		return m, err
	}
	status, err := s.lab.AgentStatus(ctx, "n1")
	m.at, m.passes = time.Now(), status.Reconcile.Passes
	return m, err
}

// kvIndex is Consul's index of all keys below weft/.
func (s *stage) kvIndex(ctx context.Context) (uint64, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return s.lab.Dial(ctx, lab.Consul, network, address)
		}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8500/v1/kv/weft/?keys", nil)
	if err != nil {
		return 0, fmt.Errorf("read index of weft/: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("read index of weft/: %w", err)
	}
	defer resp.Body.Close()
	var keys []string
	if err := json.NewDecoder(resp.Body).Decode(&keys); err != nil || len(keys) == 0 {
		return 0, fmt.Errorf("read index of weft/: %d keys, %s: %w", len(keys), resp.Status, err)
	}
	index, err := strconv.ParseUint(resp.Header.Get("X-Consul-Index"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read index of weft/: %w", err)
	}
	return index, nil
}
