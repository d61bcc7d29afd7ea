package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// A hand is a process of the bench inside a host of the lab: it does what is asked of it on its standard input, one JSON
// request at a time, and answers on its standard output. What it times starts and ends inside the host, so entering the
// host costs the figures nothing. It ends with its input.

type request struct {
	Op   string          `json:"op"`
	Args json.RawMessage `json:"args"`
}

type answer struct {
	Error string          `json:"error,omitempty"`
	Reply json.RawMessage `json:"reply,omitempty"`
}

// hand is the bench's end.
type hand struct {
	host string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *json.Decoder
}

func (s *stage) startHand(ctx context.Context, host string) (*hand, error) {
	h := &hand{host: host, cmd: s.lab.CommandContext(ctx, host, s.bench.self, "hand")}
	h.cmd.Stderr = os.Stderr
	// Ctrl-C is for us alone: we end the others in order.
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start hand on %s: %w", host, err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start hand on %s: %w", host, err)
	}
	h.out = json.NewDecoder(out)
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start hand on %s: %w", host, err)
	}
	return h, nil
}

func (h *hand) close() {
	h.in.Close()
	_ = h.cmd.Wait() // it may have been killed, and has nothing left to say
}

// ask makes one request and reads its reply as R. Not safe for concurrent use.
func ask[R any](h *hand, op string, args any) (reply R, err error) {
	data, err := json.Marshal(args)
	if err == nil {
		err = json.NewEncoder(h.in).Encode(request{Op: op, Args: data})
	}
	var a answer
	if err == nil {
		err = h.out.Decode(&a)
	}
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	if err == nil {
		err = json.Unmarshal(a.Reply, &reply)
	}
	if err != nil {
		return reply, fmt.Errorf("%s on %s: %w", op, h.host, err)
	}
	return reply, nil
}

// nothing stands for no arguments or no reply.
type nothing struct{}

type operation func(json.RawMessage) (any, error)

func op[A, R any](f func(A) (R, error)) operation {
	return func(raw json.RawMessage) (any, error) {
		var args A
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, fmt.Errorf("decode arguments: %w", err)
		}
		return f(args)
	}
}

// handMain is the end inside the host.
func handMain() int {
	w := newWorker()
	ops := map[string]operation{
		"run": op(w.runProbe), "attach": op(w.attachProbe), "network": op(w.network), "rmnetwork": op(w.removeNetwork),
		"hold": op(w.hold), "release": op(w.release), "start": op(w.startUp),
		"watchname": op(w.watchName), "named": op(w.nameSeen), "ping": op(w.ping), "peer": op(w.peer),
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var r request
		if err := in.Decode(&r); err != nil {
			w.close()
			return 0 // the bench has ended or has no more to ask
		}
		var a answer
		reply, err := any(nil), errors.New("no such operation")
		if f := ops[r.Op]; f != nil {
			reply, err = f(r.Args)
		}
		if err == nil {
			a.Reply, err = json.Marshal(reply)
		}
		if err != nil {
			a = answer{Error: err.Error()}
		}
		if err := out.Encode(a); err != nil {
			return 1
		}
	}
}

// monotonic is CLOCK_MONOTONIC in nanoseconds: one clock for all processes of a machine, and so of a lab.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("bench: no monotonic clock: " + err.Error())
	}
	return t.Nano()
}

// ms is the time between two readings of monotonic in milliseconds.
func ms(from, to int64) float64 { return float64(to-from) / 1e6 }
