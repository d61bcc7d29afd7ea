package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"time"

	"weft/pkg/api"
	"weft/pkg/apiclient"
	"weft/pkg/netns"
)

// worker does a hand's operations. Endpoints that it holds end with its process: the agent sees to that.
type worker struct {
	agent *apiclient.Client
	self  string
	held  []string // ids
	seq   int
	named chan nameSeen
	peers []*exec.Cmd
}

func newWorker() *worker {
	self, err := os.Executable()
	if err != nil {
		panic("bench: " + err.Error())
	}
	return &worker{agent: apiclient.New(""), self: self}
}

// close ends what the worker started.
func (w *worker) close() {
	for _, p := range w.peers {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
}

// toProbe says whom a new endpoint of a network is to reach.
type toProbe struct {
	Network string     `json:"network"`
	Target  netip.Addr `json:"target"`
}

// attached is one attach; all times in milliseconds from its start.
type attached struct {
	Start    int64   `json:"start"`    // of the monotonic clock
	Process  float64 `json:"process"`  // the program runs (command), or the agent has answered (API)
	Reply    float64 `json:"reply"`    // the first reply is there
	Finished float64 `json:"finished"` // the command has ended, its endpoint detached
}

// runProbe times `weft run NETWORK -- probe TARGET`.
func (w *worker) runProbe(a toProbe) (attached, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "weft", "run", a.Network, "--", w.self, "probe", a.Target.String())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	r := attached{Start: monotonic()}
	err := cmd.Run()
	r.Finished = ms(r.Start, monotonic())
	if err != nil {
		return r, fmt.Errorf("weft run: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	var p probed
	if err := json.Unmarshal(stdout.Bytes(), &p); err != nil {
		return r, fmt.Errorf("read probe: %w", err)
	}
	r.Process, r.Reply = ms(r.Start, p.Start), ms(r.Start, p.Reply)
	return r, nil
}

// attachProbe times the API call alone, as a container runtime makes it: the namespace is there before, with a prober in
// it that sends from before the call on.
func (w *worker) attachProbe(a toProbe) (r attached, err error) {
	w.seq++
	ns := fmt.Sprintf("bench-%d", w.seq)
	if err := netns.Create(ns); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, netns.Delete(ns)) }()
	ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
	defer cancel()
	c, err := listenICMP(netns.Path(ns))
	if err != nil {
		return r, err
	}
	defer c.Close()
	replied := make(chan error, 1)
	var at int64
	go func() {
		var err error
		at, _, err = firstReply(ctx, c, a.Target)
		replied <- err
	}()
	r.Start = monotonic()
	att, err := w.agent.Attach(ctx, api.AttachSpec{Network: a.Network, NetNS: netns.Path(ns)})
	if err != nil {
		return r, err
	}
	r.Process = ms(r.Start, monotonic())
	if err := <-replied; err != nil {
		return r, errors.Join(err, w.agent.Detach(ctx, string(att.ID)))
	}
	r.Reply = ms(r.Start, at)
	err = w.agent.Detach(ctx, string(att.ID))
	r.Finished = ms(r.Start, monotonic())
	return r, err
}

// network makes a network.
func (w *worker) network(spec api.NetworkSpec) (api.Network, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
	defer cancel()
	return w.agent.CreateNetwork(ctx, spec)
}

func (w *worker) removeNetwork(name string) (nothing, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
	defer cancel()
	return nothing{}, w.agent.RemoveNetwork(ctx, name)
}

// toHold says how many endpoints to keep on a network.
type toHold struct {
	Network string `json:"network"`
	Name    string `json:"name,omitempty"` // of the one, when Count is 1
	Count   int    `json:"count"`
}

// holding is when the first of the attaches began (monotonic clock), and what they gave.
type holding struct {
	Start     int64            `json:"start"`
	Endpoints []api.Attachment `json:"endpoints"`
	Took      []float64        `json:"took"` // ms, each
}

// hold attaches endpoints one after the other and keeps them. The network may be so new that this host does not know it yet.
func (w *worker) hold(a toHold) (h holding, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*probeLimit)
	defer cancel()
	for {
		_, err := w.agent.Network(ctx, a.Network)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrNotExist) || ctx.Err() != nil {
			return h, err
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.Start = monotonic()
	for range a.Count {
		begin := monotonic()
		att, err := w.agent.Attach(ctx, api.AttachSpec{Network: a.Network, Name: a.Name, NewNetNS: true})
		if err != nil {
			return h, err
		}
		w.held = append(w.held, string(att.ID))
		h.Endpoints, h.Took = append(h.Endpoints, att), append(h.Took, ms(begin, monotonic()))
	}
	return h, nil
}

// release detaches all that is held.
func (w *worker) release(nothing) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*probeLimit)
	defer cancel()
	n := 0
	for _, id := range w.held {
		if err := w.agent.Detach(ctx, id); err != nil && !errors.Is(err, os.ErrNotExist) {
			return n, err
		}
		n++
	}
	w.held = nil
	return n, nil
}

// startUp times the start of the weft program and nothing else, in milliseconds.
func (w *worker) startUp(count int) ([]float64, error) {
	var out []float64
	for range count {
		begin := monotonic()
		if err := exec.Command("weft", "version").Run(); err != nil {
			return nil, fmt.Errorf("weft version: %w", err)
		}
		out = append(out, ms(begin, monotonic()))
	}
	return out, nil
}

// toName says which name to wait for, in which endpoint, and whom to ask.
type toName struct {
	NetNS  string     `json:"netns"`
	Server netip.Addr `json:"server"`
	Name   string     `json:"name"`
}

// nameSeen is when a name was there and when its address answered, of the monotonic clock.
type nameSeen struct {
	Resolved int64  `json:"resolved"`
	Reply    int64  `json:"reply"`
	Error    string `json:"error,omitempty"`
}

// watchName begins to look for a name every 2 ms, and for a reply from its address; named waits for both.
func (w *worker) watchName(a toName) (nothing, error) {
	c, err := listenICMP(a.NetNS)
	if err != nil {
		return nothing{}, err
	}
	w.named = make(chan nameSeen, 1)
	go func() {
		defer c.Close()
		seen, err := lookFor(c, a)
		if err != nil {
			seen.Error = err.Error()
		}
		w.named <- seen
	}()
	return nothing{}, nil
}

func (w *worker) nameSeen(nothing) (nameSeen, error) {
	seen := <-w.named
	if seen.Error != "" {
		return seen, errors.New(seen.Error)
	}
	return seen, nil
}

func lookFor(c net.PacketConn, a toName) (seen nameSeen, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
	defer cancel()
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
		err = netns.DoPath(a.NetNS, func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, netip.AddrPortFrom(a.Server, 53).String())
			return err
		})
		return conn, err
	}}
	var addrs []netip.Addr
	for {
		if addrs, err = resolver.LookupNetIP(ctx, "ip4", a.Name+"."); err == nil && len(addrs) > 0 {
			break
		}
		select {
		case <-ctx.Done():
			return seen, fmt.Errorf("resolve %s: %w", a.Name, errors.Join(ctx.Err(), err))
		case <-time.After(probeEvery):
		}
	}
	seen.Resolved = monotonic()
	seen.Reply, _, err = firstReply(ctx, c, addrs[0].Unmap())
	return seen, err
}

// toPing says whom to ping how often, 100 times a second.
type toPing struct {
	NetNS  string     `json:"netns"` // "" is the host's own
	Target netip.Addr `json:"target"`
	Count  int        `json:"count"`
}

func (w *worker) ping(a toPing) ([]float64, error) {
	c, err := listenICMP(a.NetNS)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return roundTrips(c, a.Target, a.Count, 10*time.Millisecond)
}
