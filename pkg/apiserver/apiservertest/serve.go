package apiservertest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"weft/pkg/apiserver"
)

// Config is the server's configuration with b behind every interface.
func Config(b *Backend, socket string) apiserver.Config {
	return apiserver.Config{
		Socket: socket, Log: slog.New(slog.DiscardHandler),
		Networks: b, Endpoints: b, Checks: b, Processes: b, Names: b, Nodes: b, System: b, Keys: b, Trust: b,
	}
}

// Serve runs a server with b until the test ends and returns its socket.
func Serve(t testing.TB, b *Backend) string {
	t.Helper()
	// t.TempDir names the test, and a socket's path is limited to 107 bytes.
	dir, err := os.MkdirTemp("", "weft")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	ServeConfig(t, Config(b, socket))
	return socket
}

// ServeConfig runs a server with cfg until the test ends.
func ServeConfig(t testing.TB, cfg apiserver.Config) {
	t.Helper()
	srv, err := apiserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("api server: %v", err)
		}
	})
	select {
	case <-srv.Ready():
	case err := <-done:
		done <- nil
		t.Fatalf("api server: %v", err)
	}
}
