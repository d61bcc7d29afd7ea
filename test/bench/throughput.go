package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	streamTime = 3 // seconds
	streamPort = 5201
	pings      = 100
)

// path is a way from n1 to n2.
type path struct {
	name     string
	target   netip.Addr
	endpoint [2]string // names of the weft endpoints on n1 and n2, empty for the hosts themselves
	netns    string    // of the endpoint on n1
}

// measureThroughput compares the ways from n1 to n2, in turns: each round has one run of each, and ratios are taken
// within a round.
func measureThroughput(ctx context.Context, b *bench) error {
	if _, err := exec.LookPath("iperf3"); err != nil {
		b.report.skip("throughput: no iperf3 on PATH: apt-get install iperf3")
	}
	return b.inLab(ctx, 2, func(s *stage) error {
		paths, err := s.paths(ctx)
		if err != nil {
			return err
		}
		if err := s.settle(ctx, 2*time.Second); err != nil {
			return err
		}
		trips := map[string][]float64{}
		for i := range s.rounds {
			for _, p := range paths {
				rtts, err := ask[[]float64](s.n1(), "ping", toPing{NetNS: p.netns, Target: p.target, Count: pings})
				if err != nil {
					return err
				}
				trips[p.name] = append(trips[p.name], summarise(rtts).Median)
			}
			s.say("  idle pings: round %d of %d", i+1, s.rounds)
		}
		speeds, err := s.streams(ctx, paths)
		if err != nil {
			return err
		}
		s.comparison("throughput", "Gbit/s", paths, speeds)
		s.comparison("idle ping", "µs", paths, trips)
		return nil
	})
}

// The order of paths, for ratios.
const (
	pathRaw = iota
	pathPlain
	pathEncrypted
	pathEngine
	pathVXLAN
)

func (s *stage) paths(ctx context.Context) ([]path, error) {
	out := make([]path, 3, 5)
	far, err := s.lab.Host("n2")
	if err != nil {
		return nil, err
	}
	out[pathRaw] = path{name: "raw underlay (veth, MTU 1500)", target: far.Address}
	pairs, err := s.pairs(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range pairs {
		at := pathPlain
		if p.kind == encrypted {
			at = pathEncrypted
		}
		out[at] = path{fmt.Sprintf("weft %s (MTU %d)", p.kind, p.network.MTU), p.target(), [2]string{p.a.Name, p.b.Name}, p.a.NetNS}
	}
	program, version, err := s.buildPeer(ctx)
	if err != nil {
		return nil, err
	}
	tunnel, err := s.peers(program)
	if err != nil {
		return nil, err
	}
	name := "wireguard-go " + shortVersion(version)
	return append(out, path{name: fmt.Sprintf("%s, layer 3 (MTU %d)", name, tunnelMTU), target: tunnel.layer3},
		path{name: fmt.Sprintf("kernel VXLAN over %s (MTU %d)", name, vxlanMTU), target: tunnel.vxlan}), nil
}

// shortVersion turns a pseudo-version into its commit.
func shortVersion(v string) string {
	if parts := strings.Split(v, "-"); len(parts) == 3 {
		return parts[2]
	}
	return v
}

func (s *stage) comparison(measure, unit string, paths []path, values map[string][]float64) {
	if len(values) == 0 {
		return
	}
	for _, p := range paths {
		s.report.add(measure, p.name, unit, values[p.name]...)
	}
	for _, pair := range [][2]int{{pathPlain, pathRaw}, {pathEncrypted, pathRaw}, {pathEncrypted, pathEngine}, {pathEncrypted, pathVXLAN}, {pathEngine, pathRaw}} {
		a, b := paths[pair[0]].name, paths[pair[1]].name
		s.report.add(measure, "ratio: "+stem(a)+" / "+stem(b), "×", ratios(values[a], values[b])...)
	}
}

// stem is a path's name without what is in parentheses.
func stem(name string) string {
	name, _, _ = strings.Cut(name, " (")
	return name
}

// streams runs the servers on n2, then one stream at a time.
func (s *stage) streams(ctx context.Context, paths []path) (map[string][]float64, error) {
	speeds := map[string][]float64{}
	iperf, err := exec.LookPath("iperf3")
	if err != nil {
		return speeds, nil // counted as skipped
	}
	ctx, cancel := context.WithCancel(ctx)
	var servers []*exec.Cmd
	defer func() {
		cancel()
		for _, c := range servers {
			_ = c.Wait() // killed
		}
	}()
	served := map[string]bool{}
	for _, p := range paths {
		if served[p.endpoint[1]] {
			continue
		}
		served[p.endpoint[1]] = true
		c := s.lab.CommandContext(ctx, "n2", inEndpoint(p.endpoint[1], iperf, "-s", "-p", fmt.Sprint(streamPort))...)
		if err := c.Start(); err != nil {
			return nil, fmt.Errorf("start iperf3 server: %w", err)
		}
		servers = append(servers, c)
	}
	for i := range s.rounds {
		for _, p := range paths {
			v, err := s.stream(ctx, iperf, p)
			if err != nil {
				return nil, err
			}
			speeds[p.name] = append(speeds[p.name], v)
		}
		s.say("  streams: round %d of %d", i+1, s.rounds)
	}
	return speeds, nil
}

// inEndpoint makes argv run in a weft endpoint, or on the host itself when that is empty.
func inEndpoint(endpoint string, argv ...string) []string {
	if endpoint == "" {
		return argv
	}
	return append([]string{"weft", "exec", endpoint, "--"}, argv...)
}

// stream is the speed of one TCP stream in Gbit/s, as received. A server that is not ready yet is given 5 s.
func (s *stage) stream(ctx context.Context, iperf string, p path) (float64, error) {
	argv := inEndpoint(p.endpoint[0], iperf, "-c", p.target.String(), "-p", fmt.Sprint(streamPort), "-t", fmt.Sprint(streamTime), "-J")
	deadline := time.Now().Add(5 * time.Second)
	for {
		// A client that fails says why on standard output.
		out, err := s.lab.CommandContext(ctx, "n1", argv...).Output()
		v, perr := parseStream(out)
		if err == nil && perr == nil {
			return v / 1e9, nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return 0, fmt.Errorf("iperf3 over %s: %w", p.name, errors.Join(perr, err))
		}
		if err := s.settle(ctx, 100*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// parseStream takes the received bits per second from what iperf3 -J prints.
func parseStream(out []byte) (float64, error) {
	var r struct {
		Error string `json:"error"`
		End   struct {
			Received struct {
				BPS float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	switch err := json.Unmarshal(out, &r); {
	case err != nil:
		return 0, fmt.Errorf("read iperf3: %w", err)
	case r.Error != "":
		return 0, errors.New(r.Error)
	case r.End.Received.BPS <= 0:
		return 0, errors.New("nothing was received")
	}
	return r.End.Received.BPS, nil
}

// buildPeer builds the stock wireguard-go, of the version in go.mod.
func (s *stage) buildPeer(ctx context.Context) (program, version string, err error) {
	const module = "golang.zx2c4.com/wireguard"
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", module)
	list.Dir = s.root
	out, err := list.Output()
	if err != nil {
		return "", "", fmt.Errorf("find version of wireguard-go: %w", err)
	}
	program = filepath.Join(s.dir, "wireguard-go")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, module)
	build.Dir = s.root
	if out, err := build.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("build wireguard-go: %w: %s", err, out)
	}
	return program, strings.TrimSpace(string(out)), nil
}
