package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// DevConsul is a throwaway Consul, a child of this process.
type DevConsul struct {
	Address string
	cmd     *exec.Cmd
	done    chan struct{}
}

// StartDevConsul runs `consul agent -dev` with its data in memory and its log in dir, and waits until it answers. The
// HTTP port is that of address when it is free, the other ports are free ones: nothing else is disturbed.
func StartDevConsul(ctx context.Context, binary, address, dir string, log *slog.Logger) (*DevConsul, error) {
	path, err := exec.LookPath(binary)
	if err != nil {
		return nil, fmt.Errorf("--dev needs a consul binary, and %q is not one: install Consul, or set consul.binary (`make consul` builds one)", binary)
	}
	ports, err := freePorts(5)
	if err != nil {
		return nil, err
	}
	if _, p, err := net.SplitHostPort(address); err == nil && portFree(p) {
		ports[0], _ = strconv.Atoi(p) // portFree has parsed it
	}
	logFile, err := os.OpenFile(filepath.Join(dir, "consul.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start consul: %w", err)
	}
	defer logFile.Close()
	d := &DevConsul{Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])), done: make(chan struct{})}
	d.cmd = exec.Command(path, "agent", "-dev", "-client=127.0.0.1", "-bind=127.0.0.1", "-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1",
		fmt.Sprintf("-http-port=%d", ports[0]), fmt.Sprintf("-server-port=%d", ports[1]),
		fmt.Sprintf("-serf-lan-port=%d", ports[2]), fmt.Sprintf("-serf-wan-port=%d", ports[3]))
	d.cmd.Stdout, d.cmd.Stderr, d.cmd.Dir = logFile, logFile, dir
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C at the terminal is for the agent, which needs Consul to leave
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start consul: %w", err)
	}
	go func() {
		defer close(d.done)
		_ = d.cmd.Wait() // how it ended is in its log
	}()
	log.Info("throwaway consul started", "pid", d.cmd.Process.Pid, "address", d.Address, "ui", "http://"+d.Address+"/ui")
	if err := d.await(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start consul: %w: see %s", err, logFile.Name()), d.Stop())
	}
	return d, nil
}

// await waits until Consul has a leader.
func (d *DevConsul) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.Address+"/v1/status/leader", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			var b [64]byte
			n, _ := resp.Body.Read(b[:])
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK && n > 4 {
				return nil
			}
		}
		select {
		case <-d.done:
			return errors.New("it ended at once")
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return errors.New("no leader within 30 s")
		}
	}
}

// Stop ends Consul and waits for it.
func (d *DevConsul) Stop() error {
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop consul: %w", err)
	}
	select {
	case <-d.done:
		return nil
	case <-time.After(5 * time.Second):
	}
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop consul: %w", err)
	}
	<-d.done
	return nil
}

func portFree(port string) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() // all at once at the end, so that no port comes twice
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
