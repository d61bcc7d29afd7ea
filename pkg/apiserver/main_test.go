package apiserver_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

const helperEnv = "WEFT_TEST_REQUEST"

func TestMain(m *testing.M) {
	if lines := os.Getenv(helperEnv); lines != "" {
		helper(lines)
		return
	}
	goleak.VerifyTestMain(m)
}

// helper is this binary as another user: for each line "METHOD socket path" it prints the answer, in one line.
func helper(lines string) {
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		status, body, err := request(f[0], f[1], f[2], "")
		fmt.Println(status, body, err)
	}
}

// request speaks plain HTTP to a socket.
func request(method, socket, path, body string) (int, string, error) {
	c := http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequest(method, "http://weft"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.TrimSpace(string(data)), err
}
