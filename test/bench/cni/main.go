// Command cni measures the CNI plugin in a lab on this machine: how long ADD and DEL take with the agent warm.
//
//	go run ./test/bench/cni [-n 100]
//
// It needs root, bin/weft, bin/weft-cni and bin/consul (make build consul). The time is that of the plugin's process,
// from its start to its end, as a runtime waits for it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"weft/pkg/lab"
	"weft/pkg/netns"
)

// target is what the median of ADD must stay below.
const target = 30 * time.Millisecond

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	n := flag.Int("n", 100, "attach and detach `N` times on each network")
	inside := flag.String("inside", "", "used by itself: measure on this host, with the plugin at `PATH`")
	network := flag.String("network", "", "used by itself: the `NAME` of the network")
	flag.Parse()
	run := outer
	if *inside != "" {
		run = func(context.Context, int) error { return measure(*inside, *network, *n) }
	}
	if err := run(ctx, *n); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// outer makes the lab and measures inside its first host: entering a host would cost more than what is measured.
func outer(ctx context.Context, n int) (err error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("find module: %w", err)
	}
	bin := filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "bin")
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	l, err := lab.Up(ctx, lab.Options{Name: fmt.Sprintf("cni-bench-%d", os.Getpid()), Nodes: 2, Weft: filepath.Join(bin, "weft"), Consul: filepath.Join(bin, "consul")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Down(context.WithoutCancel(ctx))) }()
	var errs []error
	for name, flags := range map[string][]string{"plain": nil, "encrypted": {"--encrypted"}} {
		if _, err := l.Output(ctx, "n1", append([]string{"weft", "network", "create", name}, flags...)...); err != nil {
			return err
		}
		// Warm: both hosts are on the network already.
		for _, host := range l.Nodes() {
			if err := warm(ctx, l, host, name); err != nil {
				return err
			}
		}
		table, err := l.Output(ctx, "n1", self, "-inside", filepath.Join(bin, "weft-cni"), "-network", name, "-n", fmt.Sprint(n))
		fmt.Print(table)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// warm keeps an endpoint on a network. The host may not know a new one yet.
func warm(ctx context.Context, l *lab.Lab, host, network string) error {
	for {
		_, err := l.Output(ctx, host, "weft", "run", network, "--detach", "--", "sleep", "infinity")
		if err == nil || !strings.Contains(err.Error(), "no network is named") || ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func measure(plugin, network string, n int) error {
	const name = "bench"
	if err := netns.Create(name); err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{"cniVersion": "1.1.0", "name": network, "type": "weft-cni", "weft": map[string]any{"network": network}})
	if err != nil {
		return err
	}
	took := map[string][]time.Duration{}
	for i := range n + 5 { // the first few warm what is cached
		for _, command := range []string{"VERSION", "ADD", "DEL"} {
			cmd := exec.Command(plugin)
			cmd.Env = []string{"CNI_COMMAND=" + command, fmt.Sprintf("CNI_CONTAINERID=bench%d", i), "CNI_IFNAME=eth0",
				"CNI_NETNS=" + netns.Path(name), "CNI_PATH=" + filepath.Dir(plugin)}
			cmd.Stdin = bytes.NewReader(config)
			began := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", command, err, out)
			}
			if i >= 5 {
				took[command] = append(took[command], time.Since(began))
			}
		}
	}
	for _, command := range []string{"VERSION", "ADD", "DEL"} {
		t := took[command]
		slices.Sort(t)
		line := fmt.Sprintf("%-10s %-8s p50 %6.1f ms  p95 %6.1f ms  max %6.1f ms  n %d", network, command, ms(t, 0.5), ms(t, 0.95), ms(t, 1), len(t))
		if command == "ADD" {
			verdict := "met"
			if ms(t, 0.5) >= target.Seconds()*1e3 {
				verdict = "MISSED"
			}
			line += fmt.Sprintf("  target p50 < %v: %s", target, verdict)
		}
		fmt.Println(line)
	}
	return netns.Delete(name)
}

// ms is a quantile of sorted values, by nearest rank, in milliseconds.
func ms(sorted []time.Duration, q float64) float64 {
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)].Seconds() * 1e3
}
