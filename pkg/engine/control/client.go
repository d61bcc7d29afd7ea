package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"weft/pkg/kstate"
)

// answerTimeout bounds one request, by the monotonic clock; a loaded engine answers in milliseconds.
const answerTimeout = 2 * time.Second

// Client asks the engine of one WireGuard device. It keeps no connection. Safe for concurrent use.
//
// Errors: an os.ErrNotExist says that no engine listens (or that the engine has no such network), an
// os.ErrDeadlineExceeded that it does not answer.
type Client struct{ path string }

// NewClient returns the client for a device's engine. It performs no I/O.
func NewClient(device string) *Client { return &Client{SocketPath(device)} }

// Networks reads everything the engine has.
func (c *Client) Networks() ([]Network, error) {
	r, err := c.Do(Request{Op: OpState})
	return r.Networks, err
}

// Traffic reads what belongs to no network, along with the networks.
func (c *Client) Traffic() (Traffic, []Network, error) {
	r, err := c.Do(Request{Op: OpState})
	if err != nil || r.Traffic == nil {
		return Traffic{}, nil, err
	}
	return *r.Traffic, r.Networks, nil
}

// AddLink makes the TAP that stands for a VXLAN device.
func (c *Client) AddLink(l kstate.Link) error {
	_, err := c.Do(Request{Op: OpAddTAP, TAP: &TAP{l.NS, l.Name, l.VNI, l.Local, l.Port, l.MTU}})
	return err
}

// SetFDB makes or changes a forwarding entry.
func (c *Client) SetFDB(f kstate.FDB) error { return c.fdb(OpSetFDB, f) }

// RemoveFDB removes a forwarding entry; absence is success.
func (c *Client) RemoveFDB(f kstate.FDB) error { return c.fdb(OpRemoveFDB, f) }

func (c *Client) fdb(op Op, f kstate.FDB) error {
	_, err := c.Do(Request{Op: op, TAP: &TAP{NetNS: f.NS, Name: f.Link}, Entries: []Entry{{f.MAC, f.Dst}}})
	return err
}

// Do sends one request and returns the answer; an answer that tells of an error is returned as one.
func (c *Client) Do(req Request) (Response, error) {
	timeout := answerTimeout
	if req.Profile != nil {
		timeout += time.Duration(req.Profile.Seconds) * time.Second
	}
	conn, err := c.dial(time.Now().Add(timeout))
	if err != nil {
		return Response{}, err
	}
	defer conn.Close()
	return exchange(conn, req)
}

func (c *Client) dial(deadline time.Time) (net.Conn, error) {
	conn, err := (&net.Dialer{Deadline: deadline}).Dial("unix", c.path)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("engine is not running: %w: %w", os.ErrNotExist, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reach engine: %w", err)
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func exchange(conn net.Conn, req Request) (r Response, err error) {
	req.Version = Version
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return r, fmt.Errorf("ask engine: %w", err)
	}
	if err := json.NewDecoder(bufio.NewReader(conn)).Decode(&r); err != nil {
		return r, fmt.Errorf("ask engine for %s: %w", req.Op, err)
	}
	if r.Version != Version && r.Code == "" {
		r.Code = CodeVersion
	}
	return r, r.err()
}

func (r Response) err() error {
	switch r.Code {
	case "":
		return nil
	case CodeVersion:
		return fmt.Errorf("engine speaks version %d of the control protocol, this agent %d: %s", r.Version, Version, r.Error)
	case CodeExist:
		return fmt.Errorf("engine: %s: %w", r.Error, os.ErrExist)
	case CodeNotExist:
		return fmt.Errorf("engine: %s: %w", r.Error, os.ErrNotExist)
	}
	return fmt.Errorf("engine: %s", r.Error)
}

// watchEvery is how often Watch looks for an engine while there is none.
const watchEvery = 200 * time.Millisecond

// Watch calls gone whenever an engine that was there ends, until ctx does. It returns nil.
func (c *Client) Watch(ctx context.Context, gone func()) error {
	for ctx.Err() == nil {
		if c.follow(ctx) {
			gone()
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchEvery):
		}
	}
	return nil
}

// follow reports true when there was an engine, and its end was seen.
func (c *Client) follow(ctx context.Context) bool {
	conn, err := c.dial(time.Now().Add(answerTimeout))
	if err != nil {
		return false
	}
	defer conn.Close()
	if _, err := exchange(conn, Request{Op: OpWatch}); err != nil || conn.SetDeadline(time.Time{}) != nil {
		return false
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	_, err = conn.Read(make([]byte, 1))
	return err != nil && ctx.Err() == nil
}
