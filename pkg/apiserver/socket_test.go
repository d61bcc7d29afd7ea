package apiserver_test

import (
	"context"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"weft/pkg/apiserver"
	"weft/pkg/apiserver/apiservertest"
)

func TestSocket(t *testing.T) {
	newServer := func(t *testing.T, socket string) *apiserver.Server {
		t.Helper()
		s, err := apiserver.New(apiservertest.Config(&apiservertest.Backend{}, socket))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Run("directory is made and modes are set", func(t *testing.T) {
		socket := filepath.Join(shortDir(t), "run", "weft", "s")
		apiservertest.ServeConfig(t, apiservertest.Config(&apiservertest.Backend{}, socket))
		fi, err := os.Stat(socket)
		if err != nil || fi.Mode().Perm() != 0o660 {
			t.Errorf("socket: %v, %v, want mode 0660", fi.Mode(), err)
		}
	})
	t.Run("a group may connect", func(t *testing.T) {
		gid := os.Getegid()
		g, err := user.LookupGroupId(strconv.Itoa(gid))
		if err != nil {
			t.Skip(err)
		}
		for _, group := range []string{g.Name, "no-such-group"} {
			cfg := apiservertest.Config(&apiservertest.Backend{}, filepath.Join(shortDir(t), "s"))
			cfg.Group = group
			apiservertest.ServeConfig(t, cfg)
			fi, err := os.Stat(cfg.Socket)
			if err != nil || fi.Mode().Perm() != 0o660 || int(fi.Sys().(*syscall.Stat_t).Gid) != gid {
				t.Errorf("socket for group %s: %+v, %v", group, fi.Sys(), err)
			}
		}
	})
	t.Run("a living agent is not pushed away", func(t *testing.T) {
		socket := apiservertest.Serve(t, &apiservertest.Backend{})
		err := newServer(t, socket).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "another agent answers on "+socket) {
			t.Errorf("Run: %v", err)
		}
		if status, body, err := request("GET", socket, "/v1/networks", ""); status != 200 {
			t.Errorf("first agent: %d %s %v", status, body, err)
		}
	})
	t.Run("a dead agent's socket is replaced", func(t *testing.T) {
		socket := filepath.Join(shortDir(t), "s")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		apiservertest.ServeConfig(t, apiservertest.Config(&apiservertest.Backend{}, socket))
		if status, body, err := request("GET", socket, "/v1/networks", ""); status != 200 {
			t.Errorf("%d %s %v", status, body, err)
		}
	})
	t.Run("a file in the way stays", func(t *testing.T) {
		socket := filepath.Join(shortDir(t), "s")
		if err := os.WriteFile(socket, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := newServer(t, socket).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("Run: %v", err)
		}
		if data, _ := os.ReadFile(socket); string(data) != "precious" {
			t.Errorf("the file holds %q", data)
		}
	})
	t.Run("many at once: one wins", func(t *testing.T) {
		socket := filepath.Join(shortDir(t), "s")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close() // so that all of them find something stale first
		ctx, cancel := context.WithCancel(t.Context())
		const n = 8
		errs := make(chan error, n)
		for range n {
			s := newServer(t, socket)
			go func() { errs <- s.Run(ctx) }()
		}
		for range n - 1 {
			if err := <-errs; err == nil || !strings.Contains(err.Error(), "another agent answers") {
				t.Errorf("a loser: %v", err)
			}
		}
		if status, body, err := request("GET", socket, "/v1/networks", ""); status != 200 {
			t.Errorf("the winner: %d %s %v", status, body, err)
		}
		cancel()
		if err := <-errs; err != nil {
			t.Errorf("the winner: %v", err)
		}
	})
	t.Run("path too long", func(t *testing.T) {
		err := newServer(t, "/tmp/"+strings.Repeat("x", 120)).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "longer than 107 bytes") {
			t.Errorf("Run: %v", err)
		}
	})
}
