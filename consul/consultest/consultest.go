// Package consultest runs a real Consul agent for a test.
package consultest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Server is one Consul server on 127.0.0.1 with ports of its own.
type Server struct {
	// Address is host:port of its HTTP API; it stays the same over Stop and Start.
	Address string

	t     *testing.T
	bin   string
	dir   string
	ports []int
	cmd   *exec.Cmd
	out   *bytes.Buffer
}

// Binary finds bin/consul of this repository, or skips the test.
func Binary(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the working directory")
		}
	}
	bin := filepath.Join(dir, "bin", "consul")
	if _, err := os.Stat(bin); err != nil {
		t.Skip("needs bin/consul: run make consul")
	}
	return bin
}

// Start runs a dev server, with config (HCL, may be empty) on top, until the test ends. It skips without a binary.
func Start(t *testing.T, config string) *Server {
	t.Helper()
	s := &Server{t: t, bin: Binary(t), dir: t.TempDir()}
	s.ports = freePorts(t, 4)
	s.Address = fmt.Sprintf("127.0.0.1:%d", s.ports[0])
	if err := os.WriteFile(filepath.Join(s.dir, "extra.hcl"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	s.Start()
	return s
}

// Start runs the server again after Stop: an empty one, since a dev server keeps nothing.
func (s *Server) Start() {
	s.t.Helper()
	p := s.ports
	s.out = &bytes.Buffer{}
	s.cmd = exec.Command(s.bin, "agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", "-node=consul1", "-log-level=warn",
		fmt.Sprintf("-http-port=%d", p[0]), fmt.Sprintf("-server-port=%d", p[1]), fmt.Sprintf("-serf-lan-port=%d", p[2]),
		fmt.Sprintf("-serf-wan-port=%d", p[3]), "-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1",
		"-config-file="+filepath.Join(s.dir, "extra.hcl"))
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, s.out, s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		// A consistent read answers when the leader is ready; 403 is an answer as well.
		resp, err := client.Get("http://" + s.Address + "/v1/kv/?keys&separator=/&consistent")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode < 500 {
				return
			}
		}
		if time.Now().After(deadline) {
			s.Stop()
			s.t.Fatalf("consul did not start: %v\n%s", err, s.out)
		}
	}
}

// Stop kills the server; its data is gone.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Pause stops the server's process without ending it (SIGSTOP): it neither answers nor refuses. Resume ends that.
func (s *Server) Pause() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	// The signal reaches the threads one by one; "T" (proc_pid_stat(5)) says that it has.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
		if err != nil || time.Now().After(deadline) {
			s.t.Fatalf("consul did not stop: %v %s", err, stat)
		}
		if _, rest, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(rest, "T") {
			return
		}
	}
}

// Resume ends Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// CLI runs a consul command against the server and returns what it prints.
func (s *Server) CLI(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(s.bin, args...)
	cmd.Env = append(os.Environ(), "CONSUL_HTTP_ADDR="+s.Address)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("consul %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// freePorts picks n ports below the range that outgoing connections take theirs from (net.ipv4.ip_local_port_range,
// 32768 and up), so that only another server can come in between.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for tries := 0; len(ports) < n; tries++ {
		if tries == 1000 {
			t.Fatal("no free ports")
		}
		p := 20000 + rand.IntN(12000)
		if !slices.Contains(ports, p) && free(p) {
			ports = append(ports, p)
		}
	}
	return ports
}

// free reports whether both TCP and UDP of a port are free on 127.0.0.1.
func free(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	c, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		err = c.Close()
	}
	return l.Close() == nil && err == nil
}
