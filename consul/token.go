package consul

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// tokenFile follows a file that holds an ACL token. A stat per use is cheap beside the request that follows.
type tokenFile struct {
	path string

	mu    sync.Mutex
	mtime time.Time
	size  int64
	token string
	read  bool
}

// current returns the token, reading the file again when it changed. While the file cannot be read the last known
// token is used; there is an error only when none was ever read.
func (t *tokenFile) current() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	info, err := os.Stat(t.path)
	if err == nil && t.read && info.ModTime().Equal(t.mtime) && info.Size() == t.size {
		return t.token, nil
	}
	if err == nil {
		var b []byte
		if b, err = os.ReadFile(t.path); err == nil {
			t.token, t.read = strings.TrimSpace(string(b)), true
			t.mtime, t.size = info.ModTime(), info.Size()
			return t.token, nil
		}
	}
	if t.read {
		return t.token, nil
	}
	return "", fmt.Errorf("%w: %w", errTokenFile, err)
}

// tokenSource returns the function that gives the token for the next request.
func (c Config) tokenSource() func() (string, error) {
	if c.TokenFile != "" {
		return (&tokenFile{path: c.TokenFile}).current
	}
	return func() (string, error) { return c.Token, nil }
}

// withToken puts the token into each request. Without a token there is no header at all, so that the Consul agent's
// own default token applies.
type withToken struct {
	next  http.RoundTripper
	token func() (string, error)
}

func (t withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := t.token()
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	if r.Header.Del("X-Consul-Token"); token != "" {
		r.Header.Set("X-Consul-Token", token)
	}
	return t.next.RoundTrip(r)
}
