package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/overlay"
)

// An endpoint that fails must be out of the answers of all nodes within its interval and a second: so one bad try that is
// confirmed shortly after is enough. Coming back takes two good ones in a row, which keeps one that wavers from
// writing to Consul more than once in two intervals.
const (
	checkConfirm = 200 * time.Millisecond
	checkRise    = 2
	checksEvery  = 100 * time.Millisecond // how often new endpoints are looked for
	checkStart   = 10 * time.Second       // so long one that has not passed yet is tried every checkConfirm
)

// runChecks runs the health checks of this node's endpoints.
func (a *Agent) runChecks(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[overlay.EndpointID]context.CancelFunc{}
	for {
		a.mu.Lock()
		for id, stop := range running {
			if e, ok := a.state.Endpoints[id]; !ok || e.Leaving {
				stop()
				delete(running, id)
			}
		}
		for id, e := range a.state.Endpoints {
			if e.Check.Kind == "" || e.Leaving || running[id] != nil {
				continue
			}
			cctx, cancel := context.WithCancel(ctx)
			running[id] = cancel
			wg.Go(func() { a.runCheck(cctx, e) })
		}
		a.mu.Unlock()
		if !wait(ctx, checksEvery) {
			for _, stop := range running {
				stop()
			}
			return nil
		}
	}
}

// runCheck runs one endpoint's check until ctx ends.
func (a *Agent) runCheck(ctx context.Context, e overlay.LocalEndpoint) {
	good := 0
	state := e.Health
	if state == "" {
		state = overlay.HealthStarting
	}
	begin := time.Now()
	next := begin
	for ctx.Err() == nil {
		err := tryCheck(ctx, e)
		if err != nil && state == overlay.HealthPassing && wait(ctx, checkConfirm) {
			err = tryCheck(ctx, e)
		}
		if ctx.Err() != nil {
			return
		}
		was := state
		switch {
		case err != nil && state != overlay.HealthStarting:
			state, good = overlay.HealthFailing, 0
		case err != nil:
			good = 0
		default:
			if good++; state == overlay.HealthStarting || good >= checkRise {
				state = overlay.HealthPassing
			}
		}
		a.noteCheck(e.ID, err)
		if state != was {
			attrs := []any{"network", e.Network, "endpoint", string(e.ID), "name", e.Name, "check", e.Check.String(), "health", string(state)}
			if err != nil {
				attrs = append(attrs, "err", err)
			}
			a.log.Info("endpoint's health changed", attrs...)
			if err := a.setHealth(e.ID, state); err != nil {
				a.log.Warn("endpoint's health is not kept", "endpoint", string(e.ID), "err", err)
			}
		}
		if next = next.Add(e.Check.Interval); time.Until(next) < 0 {
			next = time.Now()
		}
		pause := time.Until(next)
		if state == overlay.HealthStarting && time.Since(begin) < checkStart { // what has just started should be found well soon
			pause, next = min(pause, checkConfirm), time.Now()
		}
		if !wait(ctx, pause) {
			return
		}
	}
}

// tryCheck runs a check once; nil means well.
func tryCheck(ctx context.Context, e overlay.LocalEndpoint) error {
	ctx, cancel := context.WithTimeout(ctx, e.Check.Timeout)
	defer cancel()
	ns := kstate.NetworkNS(e.NetworkID)
	to := netip.AddrPortFrom(e.Address, e.Check.Port).String()
	switch e.Check.Kind {
	case overlay.CheckTCP:
		c, err := dialIn(ctx, ns, to)
		if err != nil {
			return err
		}
		return c.Close()
	case overlay.CheckHTTP:
		return tryHTTP(ctx, ns, to, e.Check.Path)
	case overlay.CheckCommand:
		return tryCommand(ctx, e)
	}
	return fmt.Errorf("check of kind %q is not known to this version", e.Check.Kind)
}

// dialIn connects from a network's namespace. A socket stays in the namespace it was made in.
func dialIn(ctx context.Context, ns, address string) (c net.Conn, err error) {
	err = netns.Do(ns, func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, "tcp", address)
		return err
	})
	return c, err
}

func tryHTTP(ctx context.Context, ns, to, path string) error {
	t := &http.Transport{DisableKeepAlives: true, Proxy: nil, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		return dialIn(ctx, ns, address)
	}}
	client := http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+to+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "weft-health")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, 64<<10); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}

// tryCommand runs a command in the endpoint's own namespace, in a process group that ends with the try.
func tryCommand(ctx context.Context, e overlay.LocalEndpoint) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", e.Check.Command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 100 * time.Millisecond
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "WEFT_ADDRESS=" + e.Address.String(),
		"WEFT_ENDPOINT=" + string(e.ID), "WEFT_NAME=" + e.Name, "WEFT_NETWORK=" + e.Network, "WEFT_PID=" + strconv.Itoa(e.PID)}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = limited{&out}, limited{&out}
	if err := netns.Do(e.NetNS, cmd.Start); err != nil { // the child is a copy of the thread that starts it
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %.200s", err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// limited keeps the beginning of what is written.
type limited struct{ b *bytes.Buffer }

func (l limited) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), max(0, 512-l.b.Len()))])
	return len(p), nil
}

// noteCheck keeps the newest result for the catalog.
func (a *Agent) noteCheck(id overlay.EndpointID, err error) {
	text := "passes"
	if err != nil {
		text = oneLine(err.Error())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.checkOutput[id] != text {
		a.checkOutput[id] = text
	}
}
