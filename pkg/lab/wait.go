package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"weft/pkg/api"
)

// readyTimeout bounds the wait for one daemon; a machine with one busy core takes a tenth of it.
const readyTimeout = 60 * time.Second

var errNoLeader = errors.New("its Consul knows no leader")

// Dial connects from inside a host; address must be an IP address and port.
func (l *Lab) Dial(ctx context.Context, host, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := l.inNet(host, func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dial %s from %s: %w", address, host, err)
	}
	return conn, nil
}

// Listen listens inside a host; address must be an IP address and port, or just a port as ":80".
func (l *Lab) Listen(ctx context.Context, host, network, address string) (net.Listener, error) {
	var listener net.Listener
	err := l.inNet(host, func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen at %s on %s: %w", address, host, err)
	}
	return listener, nil
}

// SocketPath is the path at which a node's agent is reached from outside the lab, while that node runs.
func (l *Lab) SocketPath(host string) (string, error) {
	h, err := l.live(host)
	if err != nil {
		return "", err
	}
	return procPath(h.PID, "root", agentSocket), nil
}

// AgentStatus asks a node's agent for its status.
func (l *Lab) AgentStatus(ctx context.Context, host string) (api.Status, error) {
	var status api.Status
	path, err := l.SocketPath(host)
	if err != nil {
		return status, err
	}
	err = get(ctx, "http://weft"+api.Prefix+"/status", &status, func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	})
	if err != nil {
		return status, fmt.Errorf("ask agent of %s: %w", host, err)
	}
	return status, nil
}

// WaitReady waits until a node's agent answers, reaches Consul and knows all other nodes.
func (l *Lab) WaitReady(ctx context.Context, host string) error {
	return l.await(ctx, host, daemonAgent, func(ctx context.Context) error {
		status, err := l.AgentStatus(ctx, host)
		switch {
		case err != nil:
			return err
		case !status.Consul.OK:
			return fmt.Errorf("its agent does not reach Consul: %s", status.Consul.Error)
		case len(status.Peers) < l.state.Nodes-1:
			return fmt.Errorf("its agent knows %d of %d other nodes", len(status.Peers), l.state.Nodes-1)
		}
		return nil
	})
}

// WaitConsul waits until a host's Consul agent answers and reaches an elected server.
func (l *Lab) WaitConsul(ctx context.Context, host string) error {
	return l.await(ctx, host, daemonConsul, func(ctx context.Context) error {
		var leader string
		if err := l.ConsulGet(ctx, host, "/v1/status/leader", &leader); err != nil {
			return err
		}
		if leader == "" {
			return errNoLeader
		}
		return nil
	})
}

// ConsulGet reads a path of a host's Consul agent, as "/v1/agent/members", into v.
func (l *Lab) ConsulGet(ctx context.Context, host, path string, v any) error {
	return get(ctx, "http://"+consulAddress+path, v, func(ctx context.Context, network, address string) (net.Conn, error) {
		return l.Dial(ctx, host, network, address)
	})
}

// await polls ready until it gives no error. A daemon that ended is not waited for; what it said last is in the error.
func (l *Lab) await(ctx context.Context, host, daemon string, ready func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	var last error
	err := poll(limited, 50*time.Millisecond, func() (bool, error) {
		if last = ready(limited); last == nil {
			return true, nil
		}
		_, err := l.daemon(host, daemon)
		if errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		return false, nil
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("wait for %s of %s: %w", daemon, host, ctx.Err())
	case limited.Err() != nil:
		err = fmt.Errorf("not ready after %v: %w", readyTimeout, last)
	}
	return fmt.Errorf("wait for %s of %s: %w%s", daemon, host, err, l.lastWords(host, daemon))
}

// lastWords is the end of a daemon's log, for an error message.
func (l *Lab) lastWords(host, daemon string) string {
	data, err := os.ReadFile(filepath.Join(l.dir, host, daemon+".log"))
	data = bytes.TrimSpace(data)
	if err != nil || len(data) == 0 {
		return ""
	}
	lines := strings.Split(string(data[max(0, len(data)-2000):]), "\n")
	return "; its log ends:\n\t" + strings.Join(lines[max(0, len(lines)-8):], "\n\t")
}

const maxAnswer = 16 << 20

// get fetches JSON over a connection of its own, so that nothing is left open or running.
func get(ctx context.Context, url string, v any, dial func(ctx context.Context, network, address string) (net.Conn, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("get %s: %w", url, err)
	}
	req.Header.Set("Weft-Api", api.Version)
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err // says method and URL itself
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("get %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s: %s", url, resp.Status, bytes.TrimSpace(body))
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("get %s: decode answer: %w", url, err)
	}
	return nil
}
