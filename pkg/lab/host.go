package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// runHost is a host's first process. It makes the host, says so, and then reaps orphans until it is told to end.
func runHost(dir, name string) error {
	if os.Getpid() != 1 {
		return errors.New("run lab host: only `weft lab up` starts this, in a PID namespace of its own")
	}
	goEnd, ready := os.NewFile(goFD, "go"), os.NewFile(readyFD, "ready")
	// Handlers first: a PID 1 without one does not get the signal.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM)
	if word, err := io.ReadAll(goEnd); err != nil || string(word) != goWord {
		return errors.New("run lab host: the lab ended before it recorded this host")
	}
	goEnd.Close()
	if err := makeHost(dir, name); err != nil {
		fmt.Fprintf(ready, "%v", err)
		return err
	}
	if _, err := io.WriteString(ready, readyWord); err != nil {
		return fmt.Errorf("run lab host: %w", err)
	}
	ready.Close()
	reap() // what ended before
	for s := range signals {
		if s == syscall.SIGTERM {
			return nil
		}
		reap()
	}
	return nil
}

func reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// makeHost turns fresh namespaces into a host.
func makeHost(dir, name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := makeMounts(dir, name); err != nil {
		return err
	}
	for key, value := range sysctls(name) {
		path := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
		if !exists(path) {
			continue // not in this kernel
		}
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", key, err)
		}
	}
	return nil
}

// sysctls are those a new network namespace may inherit from the machine, or that would make a quiet underlay talk.
func sysctls(name string) map[string]string {
	s := map[string]string{
		"net.ipv4.ip_forward":                        "0",
		"net.ipv4.conf.all.rp_filter":                "0",
		"net.ipv4.conf.default.rp_filter":            "0",
		"net.ipv6.conf.all.router_solicitations":     "0",
		"net.ipv6.conf.default.router_solicitations": "0",
		"net.ipv6.conf.all.accept_ra":                "0",
		"net.ipv6.conf.default.accept_ra":            "0",
	}
	if name == Switch {
		s["net.ipv6.conf.all.disable_ipv6"] = "1"
		s["net.ipv6.conf.default.disable_ipv6"] = "1"
		s["net.bridge.bridge-nf-call-iptables"] = "0"
		s["net.bridge.bridge-nf-call-ip6tables"] = "0"
		s["net.bridge.bridge-nf-call-arptables"] = "0"
	}
	return s
}
