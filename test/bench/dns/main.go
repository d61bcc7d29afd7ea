// Command dns measures how fast weft answers names, beside CoreDNS and dnsmasq on the same machine in the same run.
//
//	go run ./test/bench/dns [-rounds 3] [-seconds 5]
//
// 10,000 names of two addresses, asked in mixed case with EDNS0 by dnsperf, while 100 records change every second; then
// 10,000 names of others with a warm cache. The servers take turns, so that a busy machine is busy for all. It needs
// dnsperf and dnsmasq on PATH (Debian has both); CoreDNS is built from test/bench/coredns, once, into bin/.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	names         = 10_000
	upstreamPort  = 15300
	coreDNSModule = "github.com/coredns/coredns"
)

// server is one that is measured.
type server struct {
	name string
	port int
	argv []string
	// change makes changesPerSecond records other ones, once a second; nil when the server does that itself.
	change func(round int) error
	cmd    *exec.Cmd
}

func main() {
	rounds := flag.Int("rounds", 3, "how often each server is measured")
	seconds := flag.Int("seconds", 5, "how long, each time")
	role := flag.String("role", "", "used by the command itself")
	port := flag.Int("port", 0, "used by the command itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch *role {
	case "weft":
		err = serveWeft(ctx, *port)
	case "upstream":
		err = serveUpstream(ctx, *port)
	default:
		err = bench(ctx, *rounds, *seconds)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, rounds, seconds int) error {
	for _, p := range []string{"dnsperf", "dnsmasq"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is not on PATH: apt-get install %s", p, map[string]string{"dnsperf": "dnsperf", "dnsmasq": "dnsmasq-base"}[p])
		}
	}
	coredns, err := buildCoreDNS(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "weft-bench-dns-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // dnsmasq drops its privileges
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	hosts := filepath.Join(dir, "hosts")
	if err := writeHosts(hosts, 0); err != nil {
		return err
	}
	corefile := filepath.Join(dir, "Corefile")
	conf := fmt.Sprintf(".:15302 {\n bind 127.0.0.1\n loadbalance\n hosts %s {\n  ttl 5\n  reload 1s\n  fallthrough\n }\n cache 3600 {\n  success 50000\n  disable success blue.weft\n  disable denial blue.weft\n }\n forward . 127.0.0.1:%d\n}\n", hosts, upstreamPort)
	if err := os.WriteFile(corefile, []byte(conf), 0o644); err != nil {
		return err
	}
	up := &server{name: "upstream", port: upstreamPort, argv: []string{self, "-role", "upstream", "-port", strconv.Itoa(upstreamPort)}}
	masq := &server{name: "dnsmasq", port: 15303}
	masq.argv = []string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--addn-hosts=" + hosts, "--port=15303", "--listen-address=127.0.0.1",
		"--bind-interfaces", "--no-resolv", "--server=127.0.0.1#" + strconv.Itoa(upstreamPort), "--cache-size=10000", "--local-ttl=5", "--user=root", "--pid-file=", "--dns-forward-max=1000"}
	masq.change = func(round int) error {
		return errors.Join(writeHosts(hosts, round), masq.cmd.Process.Signal(syscall.SIGHUP))
	}
	core := &server{name: "CoreDNS", port: 15302, argv: []string{coredns, "-conf", corefile, "-quiet"},
		change: func(round int) error { return writeHosts(hosts, round) }}
	weft := &server{name: "weft", port: 15301, argv: []string{self, "-role", "weft", "-port", "15301"}}
	all := []*server{weft, core, masq}
	for _, s := range append([]*server{up}, all...) {
		if err := s.start(ctx); err != nil {
			return err
		}
		defer s.stop()
	}
	for kind, zone := range map[string]string{"own names": "blue.weft", "forwarded, warm cache": "example.org"} {
		queries := filepath.Join(dir, zone)
		if err := writeQueries(queries, zone); err != nil {
			return err
		}
		if err := compare(ctx, kind, all, queries, zone, rounds, seconds); err != nil {
			return err
		}
	}
	return nil
}

// compare measures all servers in turns and prints the medians.
func compare(ctx context.Context, kind string, all []*server, queries, zone string, rounds, seconds int) error {
	rates, p99 := map[string][]float64{}, map[string][]float64{}
	for _, s := range all { // warms the caches, and the processors
		if _, _, err := s.measure(ctx, queries, zone, 2, false); err != nil {
			return err
		}
	}
	for range rounds {
		for _, s := range all {
			rate, late, err := s.measure(ctx, queries, zone, seconds, zone == "blue.weft")
			if err != nil {
				return err
			}
			rates[s.name], p99[s.name] = append(rates[s.name], rate), append(p99[s.name], late)
		}
	}
	fmt.Printf("\n%s: median of %d rounds of %d s\n%-10s %12s %10s %14s\n", kind, rounds, seconds, "", "queries/s", "p99 ms", "weft is times")
	base := median(rates["weft"])
	for _, s := range all {
		fmt.Printf("%-10s %12.0f %10.2f %14.2f   %.0f\n", s.name, median(rates[s.name]), median(p99[s.name]), base/median(rates[s.name]), rates[s.name])
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func (s *server) start(ctx context.Context) error {
	s.cmd = exec.Command(s.argv[0], s.argv[1:]...)
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		if _, err := ask(s.port, "svc-1.blue.weft"); err == nil {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("%s does not answer", s.name)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait() // how it ended does not matter any more
}

// measure runs dnsperf against one server. Beside it a slow asker measures how long one answer takes under that load,
// and the server's records change.
func (s *server) measure(ctx context.Context, queries, zone string, seconds int, change bool) (rate, p99 float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds+20)*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "dnsperf", "-s", "127.0.0.1", "-p", strconv.Itoa(s.port), "-d", queries, "-e", "-l", strconv.Itoa(seconds),
		"-c", "16", "-q", "200", "-T", "1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	done := make(chan struct{})
	changed := make(chan error, 1)
	go func() {
		for round := 1; ; round++ {
			select {
			case <-done:
				changed <- nil
				return
			case <-time.After(time.Second):
			}
			if !change || s.change == nil {
				continue
			}
			if err := s.change(round); err != nil {
				changed <- err
				return
			}
		}
	}()
	late := make(chan []time.Duration, 1)
	go func() {
		var all []time.Duration
		for {
			select {
			case <-done:
				late <- all
				return
			case <-time.After(2 * time.Millisecond):
			}
			d, err := ask(s.port, fmt.Sprintf("svc-%d.%s", rand.IntN(names), zone))
			if err != nil {
				d = time.Second
			}
			all = append(all, d)
		}
	}()
	lost, said := "", false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		key, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), ":")
		fields := strings.Fields(value)
		switch {
		case key == "Queries per second" && len(fields) > 0:
			said = true
			rate, err = strconv.ParseFloat(fields[0], 64)
		case key == "Queries lost" && len(fields) > 0 && fields[0] != "0":
			lost = value
		case key == "Response codes" && !strings.Contains(value, "NOERROR"):
			err = fmt.Errorf("%s answers %s", s.name, value)
		}
	}
	werr := cmd.Wait()
	close(done)
	all := <-late
	if cerr := errors.Join(err, werr, <-changed); cerr != nil {
		return 0, 0, cerr
	}
	if !said {
		return 0, 0, fmt.Errorf("dnsperf says nothing of %s", s.name)
	}
	if lost != "" {
		fmt.Printf("%s lost%s queries\n", s.name, lost)
	}
	slices.Sort(all)
	return rate, all[len(all)*99/100].Seconds() * 1e3, nil
}

// ask asks once and returns how long the answer took.
func ask(port int, name string) (time.Duration, error) {
	c, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	q := []byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	q = append(q, 0, 0, 1, 0, 1)
	start := time.Now()
	if err := c.SetDeadline(start.Add(time.Second)); err != nil {
		return 0, err
	}
	if _, err := c.Write(q); err != nil {
		return 0, err
	}
	b := make([]byte, 1500)
	n, err := c.Read(b)
	if err != nil {
		return 0, err
	}
	if n < 12 || b[3]&0xf != 0 || b[7] == 0 {
		return 0, fmt.Errorf("no answer for %s: % x", name, b[:n])
	}
	return time.Since(start), nil
}

// address is that of an instance of a service, another one in each round for a hundred services.
func address(i, instance, round int) string {
	if i/100 == round%100 && round > 0 {
		instance += 2
	}
	return fmt.Sprintf("10.%d.%d.%d", 1+instance, i>>8, i&255)
}

// writeHosts writes the names for the others, as a whole and in one step.
func writeHosts(path string, round int) error {
	var b strings.Builder
	for i := range names {
		for k := range 2 {
			fmt.Fprintf(&b, "%s svc-%d.blue.weft\n", address(i, k, round), i)
		}
	}
	if err := os.WriteFile(path+".new", []byte(b.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// writeQueries writes what dnsperf asks: every name, in random order and case.
func writeQueries(path, zone string) error {
	var b strings.Builder
	for _, i := range rand.Perm(names) {
		name := []byte(fmt.Sprintf("svc-%d.%s", i, zone))
		for k, c := range name {
			if 'a' <= c && c <= 'z' && rand.IntN(2) == 0 {
				name[k] = c - 'a' + 'A'
			}
		}
		fmt.Fprintf(&b, "%s A\n", name)
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// buildCoreDNS builds CoreDNS unless bin/coredns is there.
func buildCoreDNS(ctx context.Context) (string, error) {
	bin, err := filepath.Abs("bin/coredns")
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	fmt.Fprintln(os.Stderr, "bench: building CoreDNS, some minutes, once")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, coreDNSModule)
	cmd.Dir, cmd.Env, cmd.Stderr = "test/bench/coredns", append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod"), os.Stderr
	return bin, cmd.Run()
}
