package apiclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"weft/pkg/api"
)

// Time-outs, on the monotonic clock. The agent gives up on a request after 2 minutes, so a write waits a bit longer to
// get its answer and not a guess.
const (
	dialTimeout  = 3 * time.Second
	readTimeout  = 20 * time.Second
	writeTimeout = 130 * time.Second
	maxAnswer    = 64 << 20 // bytes: 250 nodes of 40 endpoints are about 3 MB
)

// ErrNoAgent is in every error that means that no agent answers on the socket.
var ErrNoAgent = errors.New("the weft agent does not answer")

// Client is a client of one agent, safe for concurrent use. Errors of the agent are *api.Error inside; ErrNoAgent and
// os.ErrPermission (the socket may not be opened) are the two others worth telling apart.
type Client struct {
	socket string
	http   *http.Client
}

// New makes a client of the agent on socket, api.DefaultSocket when empty. It does not connect yet.
func New(socket string) *Client {
	if socket == "" {
		socket = api.DefaultSocket
	}
	d := net.Dialer{Timeout: dialTimeout}
	return &Client{socket: socket, http: &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return d.DialContext(ctx, "unix", socket)
			},
			DisableCompression: true,
			// A local connection is cheap, and so nothing has to be closed at the end.
			DisableKeepAlives: true,
		},
		// A redirect means that something else answers.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// route joins escaped path elements below the API's prefix; an element that no path can carry is an error.
func route(elem ...string) (string, error) {
	p := api.Prefix
	for _, e := range elem {
		if e == "" || e == "." || e == ".." {
			return "", api.Errorf(api.Invalid, "%q is not a name", e)
		}
		p += "/" + url.PathEscape(e)
	}
	return p, nil
}

// get reads path into out.
func (c *Client) get(ctx context.Context, out any, elem ...string) error {
	data, err := c.do(ctx, readTimeout, http.MethodGet, nil, elem...)
	if err != nil {
		return err
	}
	return c.unmarshal(data, out)
}

// send writes in, if any, and reads the answer into out, if any.
func (c *Client) send(ctx context.Context, method string, in, out any, elem ...string) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	data, err := c.do(ctx, writeTimeout, method, body, elem...)
	if err != nil || out == nil {
		return err
	}
	return c.unmarshal(data, out)
}

func (c *Client) unmarshal(data []byte, out any) error {
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("decode answer of the agent on %s: %w", c.socket, err)
	}
	return nil
}

// do makes one request and returns the body of a 2xx answer.
func (c *Client) do(ctx context.Context, timeout time.Duration, method string, body []byte, elem ...string) ([]byte, error) {
	path, err := route(elem...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://weft"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set(api.VersionHeader, api.Version)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err, timeout)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, c.explain(err, timeout)
	}
	if len(data) > maxAnswer {
		return nil, fmt.Errorf("the agent's answer on %s is larger than %d bytes", c.socket, maxAnswer)
	}
	return data, c.check(resp, data)
}

// check turns an answer that is not 2xx into an error.
func (c *Client) check(resp *http.Response, data []byte) error {
	v := resp.Header.Get(api.VersionHeader)
	if v == "" {
		return fmt.Errorf("what answers on %s is not a weft agent (%s)", c.socket, resp.Status)
	}
	if resp.StatusCode/100 == 2 && v == api.Version {
		return nil
	}
	var e api.Error
	if json.Unmarshal(data, &e) == nil && e.Code != "" && e.Message != "" {
		e.Message = api.OneLine(e.Message)
		return &e
	}
	if v != api.Version {
		return fmt.Errorf("the agent on %s speaks version %q of the API and this client version %s: use weft and agent of one release", c.socket, v, api.Version)
	}
	return fmt.Errorf("the agent on %s answers %s", c.socket, resp.Status)
}

// explain says what a failed exchange means. The wrapped chain of net/http names a URL that does not exist, so it is
// taken apart.
func (c *Client) explain(err error, timeout time.Duration) error {
	var op *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("connect to %s: %w: only root may use it, run weft as root", c.socket, os.ErrPermission)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return noAgentError{c.socket}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the weft agent on %s did not answer within %s: %w", c.socket, timeout, context.DeadlineExceeded)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("the weft agent on %s stopped before it answered", c.socket)
	case errors.As(err, &op):
		return fmt.Errorf("connect to %s: %w", c.socket, op.Err)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("ask the weft agent on %s: %w", c.socket, err)
}

// noAgentError is ErrNoAgent with the way out.
type noAgentError struct{ socket string }

func (e noAgentError) Error() string {
	return fmt.Sprintf("%v on %s: start it with `systemctl start weft` or `weft agent --dev`", ErrNoAgent, e.socket)
}

func (e noAgentError) Is(target error) bool { return target == ErrNoAgent }
