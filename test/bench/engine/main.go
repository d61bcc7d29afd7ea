// Command engine measures the engine's data path against bare wireguard-go and against kernel VXLAN over a wireguard-go
// TUN, between two hosts on this machine. It needs root, iperf3 and ping.
//
// All variants are up at once, each with namespaces of its own, and are run in turn (A-B-C-A-B-C), so that what else the
// machine does meets them alike. Figures are medians, and ratios those of pairs of neighbouring runs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"weft/keys"
	"weft/pkg/engine/control"
	"weft/pkg/overlay"
)

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often each measure is taken of each variant")
	flag.IntVar(&o.seconds, "seconds", 4, "length of one iperf3 run")
	flag.StringVar(&o.variants, "variants", "bare,engine,tun", "what to run: bare, engine, tun, mixed (an engine and kernel VXLAN over bare wireguard-go)")
	flag.StringVar(&o.measures, "measures", "tcp1,tcp4,rev1,rev4,udp,ping", "what to measure")
	flag.StringVar(&o.profile, "profile", "", "write CPU profiles of the engines of the first variant with a control socket here, during one more run of the first measure")
	flag.StringVar(&o.env, "env", "", "environment of all WireGuard processes, as GOMAXPROCS=2,GOGC=200")
	flag.IntVar(&o.segs, "segs", 0, "gso_max_segs of the containers' interfaces; 0 leaves it")
	flag.StringVar(&o.weft, "weft", "", "weft binary; empty builds it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench engine:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds, seconds, segs                      int
	variants, measures, profile, env, weft, wg string
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "weft-bench-engine-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o.wg = filepath.Join(dir, "wireguard-go")
	builds := [][]string{{"build", "-o", o.wg, "golang.zx2c4.com/wireguard"}}
	if o.weft == "" {
		o.weft = filepath.Join(dir, "weft")
		builds = append(builds, []string{"build", "-o", o.weft, "./cmd/weft"})
	}
	for _, b := range builds {
		cmd := exec.CommandContext(ctx, "go", b...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %v: %w\n%s", b, err, out)
		}
	}
	var all []*variant
	defer func() {
		for _, v := range all {
			err = errors.Join(err, v.down())
		}
	}()
	for i, name := range strings.Split(o.variants, ",") {
		v := &variant{name: name, o: o, id: fmt.Sprintf("we%d%c", os.Getpid()%100000, 'a'+i)}
		all = append(all, v)
		if err := v.up(ctx); err != nil {
			return fmt.Errorf("set up %s: %w", name, err)
		}
	}
	for _, m := range strings.Split(o.measures, ",") {
		if err := measure(ctx, o, all, m); err != nil {
			return err
		}
	}
	if o.profile != "" {
		return profile(ctx, o, all)
	}
	return nil
}

// measure prints one table row per variant: median, ratio to the first variant, and processor seconds per second and
// unit, which other load on the machine hardly changes: of iperf3 with what the kernel does for it, and the WireGuard
// processes with what it does for them.
func measure(ctx context.Context, o options, all []*variant, m string) error {
	values, cpus, engines := map[*variant][]float64{}, map[*variant][]float64{}, map[*variant][]float64{}
	for range o.rounds {
		for _, v := range all {
			before := v.cpu()
			v.iperf = 0
			x, err := v.take(ctx, m)
			if err != nil {
				return fmt.Errorf("%s of %s: %w", m, v.name, err)
			}
			values[v] = append(values[v], x)
			cpus[v] = append(cpus[v], (v.cpu()-before+v.iperf)/x)
			engines[v] = append(engines[v], (v.cpu()-before)/x)
		}
	}
	unit := map[bool]string{true: "ms", false: "Gbit/s"}[m == "ping"]
	if m == "udp" {
		unit = "kpps"
	}
	for _, v := range all {
		var ratios []float64
		for i, x := range values[v] {
			ratios = append(ratios, x/values[all[0]][i])
		}
		mem := v.memory()
		fmt.Printf("%-5s %-7s %7.3f %-6s  ratio %5.2f  (%.2f-%.2f)  cpu/unit %5.3f, of it WireGuard %5.3f  rss %s\n", m, v.name, median(values[v]), unit,
			median(ratios), slices.Min(values[v]), slices.Max(values[v]), median(cpus[v])/float64(o.seconds), median(engines[v])/float64(o.seconds), mem)
	}
	return nil
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return s[len(s)/2]
}

func profile(ctx context.Context, o options, all []*variant) error {
	for _, v := range all {
		var got []chan error
		for _, h := range v.hosts {
			if h.control == nil {
				continue
			}
			ch := make(chan error, 1)
			got = append(got, ch)
			go func() {
				r, err := h.control.Do(control.Request{Op: control.OpProfile, Profile: &control.Profile{Name: "cpu", Seconds: o.seconds}})
				ch <- errors.Join(err, os.WriteFile(o.profile+"-"+h.side+".pprof", r.Profile, 0o644))
			}()
		}
		if got == nil {
			continue
		}
		m, _, _ := strings.Cut(o.measures, ",")
		if _, err := v.take(ctx, m); err != nil {
			return err
		}
		for _, ch := range got {
			if err := <-ch; err != nil {
				return err
			}
		}
		return nil
	}
	return nil
}

// variant is one way to connect two hosts.
type variant struct {
	name, id string
	o        options
	hosts    [2]*host
	procs    []*exec.Cmd
	iperf    float64 // CPU seconds of iperf3 in the last run, both sides
	client   string  // namespace of iperf3's client, on host 0
	server   string  // on host 1
	addr     string
}

type host struct {
	side, ns, device string
	key              keys.PrivateKey
	underlay, vtep   netip.Addr
	tap              bool // the engine does VXLAN
	control          *control.Client
	pid              int
}

const (
	vni   = 8388700
	port  = 51820
	vxlan = 4789
)

// up makes the hosts:  <id>0 -veth- <id>1; with VXLAN each has <id>0t (transit), <id>0n (bridge) and <id>0c (container).
func (v *variant) up(ctx context.Context) error {
	for i := range v.hosts {
		k, err := keys.NewPrivateKey()
		if err != nil {
			return err
		}
		h := &host{side: strconv.Itoa(i), ns: v.id + strconv.Itoa(i), key: k, underlay: netip.AddrFrom4([4]byte{198, 18, 9, byte(i + 1)}),
			vtep: netip.AddrFrom4([4]byte{100, 64, 9, byte(i + 1)})}
		h.device = h.ns + "w"
		h.tap = v.name == "engine" || v.name == "mixed" && i == 0
		v.hosts[i] = h
		if err := v.ip("netns add " + h.ns); err != nil {
			return err
		}
	}
	a, b := v.hosts[0], v.hosts[1]
	if err := v.ip("link add u0 netns " + a.ns + " mtu 1500 type veth peer name u0 netns " + b.ns); err != nil {
		return err
	}
	for i, h := range v.hosts {
		if err := v.host(ctx, h, i); err != nil {
			return err
		}
	}
	for i, h := range v.hosts {
		if err := v.configure(h, v.hosts[1-i]); err != nil {
			return err
		}
	}
	if v.name == "bare" {
		v.client, v.server, v.addr = a.ns, b.ns, b.vtep.String()
	} else {
		v.client, v.server, v.addr = a.ns+"c", b.ns+"c", "10.99.0.2"
	}
	if err := v.serve(ctx); err != nil {
		return err
	}
	return v.reachable()
}

func (v *variant) host(ctx context.Context, h *host, i int) error {
	cmds := []string{"-n " + h.ns + " link set lo up", "-n " + h.ns + " link set u0 up", "-n " + h.ns + " addr add " + h.underlay.String() + "/24 dev u0"}
	transit := h.ns
	if v.name != "bare" {
		transit = h.ns + "t"
		for _, s := range "tnc" {
			cmds = append(cmds, "netns add "+h.ns+string(s), "-n "+h.ns+string(s)+" link set lo up")
		}
		cmds = append(cmds,
			"-n "+h.ns+"n link add br0 type bridge mcast_snooping 0", "-n "+h.ns+"n link set br0 mtu 1370 up",
			"-n "+h.ns+"n link add e0 mtu 1370 type veth peer name eth0 address "+mac(i).String()+" mtu 1370 netns "+h.ns+"c",
			"-n "+h.ns+"n link set e0 master br0 up", "-n "+h.ns+"c link set eth0 up",
			"-n "+h.ns+"c addr add 10.99.0."+strconv.Itoa(i+1)+"/24 dev eth0",
			"-n "+h.ns+"c neigh add 10.99.0."+strconv.Itoa(2-i)+" lladdr "+mac(1-i).String()+" dev eth0")
	}
	if v.o.segs > 0 && v.name == "engine" {
		cmds = append(cmds, fmt.Sprintf("-n %sc link set eth0 gso_max_segs %d", h.ns, v.o.segs))
	}
	if err := v.ip(cmds...); err != nil {
		return err
	}
	argv := []string{v.o.wg, "-f", h.device}
	if h.tap || v.name == "tun" {
		argv = []string{v.o.weft, "engine", "--device", h.device, "--netns", transit, "--mtu", "1420"}
		if !h.tap {
			argv = append(argv, "--plain")
		}
	}
	if err := v.start(ctx, h, argv); err != nil {
		return err
	}
	if transit != h.ns && !h.tap && v.name != "tun" { // a stock wireguard-go opens its TUN where its sockets are
		if err := v.ip("-n " + h.ns + " link set " + h.device + " netns " + transit); err != nil {
			return err
		}
	}
	return v.ip("-n "+transit+" addr add "+h.vtep.String()+"/32 dev lo", "-n "+transit+" link set "+h.device+" mtu 1420 up",
		"-n "+transit+" route add 100.64.9.0/24 dev "+h.device+" src "+h.vtep.String())
}

func mac(i int) overlay.MAC { return overlay.MAC{2, 0x99, 0, 0, 0, byte(i + 1)} }

func (v *variant) start(ctx context.Context, h *host, argv []string) error {
	cmd := exec.Command("ip", append([]string{"netns", "exec", h.ns}, argv...)...)
	cmd.Env = append(os.Environ(), "LOG_LEVEL=error")
	if v.o.env != "" {
		cmd.Env = append(cmd.Env, strings.Split(v.o.env, ",")...)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	v.procs = append(v.procs, cmd)
	h.pid = cmd.Process.Pid // ip becomes the program
	for range 200 {
		if _, err := uapi(h.device, "get=1\n\n"); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("%v does not answer", argv)
}

func uapi(device, request string) (string, error) {
	c, err := net.Dial("unix", "/var/run/wireguard/"+device+".sock")
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		return "", err
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

func (v *variant) configure(h, peer *host) error {
	private, public := h.key.Reveal(), peer.key.Public()
	req := fmt.Sprintf("set=1\nprivate_key=%x\nlisten_port=%d\npublic_key=%x\nendpoint=%s:%d\nallowed_ip=%s/32\n\n",
		private[:], port, public[:], peer.underlay, port, peer.vtep)
	if out, err := uapi(h.device, req); err != nil || !strings.HasPrefix(out, "errno=0") {
		return fmt.Errorf("configure %s: %q %w", h.device, out, err)
	}
	if v.name == "bare" {
		return nil
	}
	n := h.ns + "n"
	far := mac(1)
	if h == v.hosts[1] {
		far = mac(0)
	}
	if h.tap {
		h.control = control.NewClient(h.device)
		tap := control.TAP{NetNS: n, Name: "vxlan0", VNI: vni, Local: h.vtep, Port: vxlan, MTU: 1370}
		for _, r := range []control.Request{{Op: control.OpAddTAP, TAP: &tap},
			{Op: control.OpSetFDB, TAP: &tap, Entries: []control.Entry{{MAC: far, VTEP: peer.vtep}}}} {
			if _, err := h.control.Do(r); err != nil {
				return err
			}
		}
	} else if err := v.ip("-n "+h.ns+"t link add vxlan0 netns "+n+" mtu 1370 type vxlan id "+strconv.Itoa(vni)+" dstport "+strconv.Itoa(vxlan)+
		" local "+h.vtep.String()+" nolearning", "-n "+n+" link set vxlan0 up"); err != nil {
		return err
	}
	if err := v.ip("-n "+n+" link set vxlan0 master br0", "-n "+n+" link set vxlan0 up"); err != nil {
		return err
	}
	if !h.tap {
		return command("bridge", "-n", n, "fdb", "add", far.String(), "dev", "vxlan0", "self", "dst", peer.vtep.String())
	}
	return nil
}

func (v *variant) ip(cmds ...string) error {
	for _, c := range cmds {
		if err := command("ip", strings.Fields(c)...); err != nil {
			return err
		}
	}
	return nil
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}

func (v *variant) serve(context.Context) error {
	cmd := exec.Command("ip", "netns", "exec", v.server, "iperf3", "-s")
	if err := cmd.Start(); err != nil {
		return err
	}
	v.procs = append(v.procs, cmd)
	return nil
}

func (v *variant) reachable() error {
	var err error
	for range 20 {
		if err = command("ip", "netns", "exec", v.client, "ping", "-c", "1", "-W", "1", "-q", v.addr); err == nil {
			return nil
		}
	}
	return err
}

func (v *variant) take(ctx context.Context, m string) (float64, error) {
	args := []string{"netns", "exec", v.client}
	if m == "ping" {
		out, err := exec.CommandContext(ctx, "ip", append(args, "ping", "-n", "-c", "400", "-i", "0.005", v.addr)...).Output()
		if err != nil {
			return 0, err
		}
		var all []float64
		for line := range strings.Lines(string(out)) {
			if _, after, ok := strings.Cut(line, "time="); ok {
				ms, _ := strconv.ParseFloat(strings.Fields(after)[0], 64)
				all = append(all, ms)
			}
		}
		return median(all), nil // one late answer on a busy machine would outweigh a hundred
	}
	args = append(args, "iperf3", "-c", v.addr, "-J", "-t", strconv.Itoa(v.o.seconds))
	switch m {
	case "tcp4", "rev4":
		args = append(args, "-P", "4")
	case "udp":
		args = append(args, "-u", "-l", "1200", "-b", "0")
	}
	if strings.HasPrefix(m, "rev") {
		args = append(args, "-R")
	}
	out, err := exec.CommandContext(ctx, "ip", args...).Output()
	if err != nil {
		return 0, fmt.Errorf("iperf3: %w: %.300s", err, out)
	}
	type sum struct {
		BPS     float64 `json:"bits_per_second"`
		Packets float64 `json:"packets"`
		Lost    float64 `json:"lost_packets"`
		Seconds float64 `json:"seconds"`
	}
	var r struct {
		End struct {
			Received sum `json:"sum_received"`
			Sum      sum `json:"sum"`
			CPU      struct {
				Host   float64 `json:"host_total"`
				Remote float64 `json:"remote_total"`
			} `json:"cpu_utilization_percent"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return 0, err
	}
	v.iperf = (r.End.CPU.Host + r.End.CPU.Remote) / 100 * float64(v.o.seconds)
	if m == "udp" {
		return (r.End.Sum.Packets - r.End.Sum.Lost) / r.End.Sum.Seconds / 1e3, nil
	}
	return r.End.Received.BPS / 1e9, nil
}

// cpu is the time that the two WireGuard processes have used, in seconds.
func (v *variant) cpu() (total float64) {
	for _, h := range v.hosts {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.pid))
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, i := range []int{11, 12} {
			n, _ := strconv.ParseFloat(f[i], 64)
			total += n / 100
		}
	}
	return total
}

func (v *variant) memory() string {
	var out []string
	for _, h := range v.hosts {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.pid))
		_, after, _ := strings.Cut(string(status), "VmRSS:")
		n, _ := strconv.Atoi(strings.Fields(after)[0])
		out = append(out, fmt.Sprintf("%dM", n/1024))
	}
	return strings.Join(out, "/")
}

func (v *variant) down() error {
	var errs []error
	for _, p := range v.procs {
		_ = p.Process.Signal(unix.SIGTERM)
		_ = p.Wait()
	}
	for _, h := range v.hosts {
		if h == nil {
			continue
		}
		for _, s := range []string{"c", "n", "t", ""} {
			if _, err := os.Stat("/run/netns/" + h.ns + s); err == nil {
				errs = append(errs, command("ip", "netns", "del", h.ns+s))
			}
		}
	}
	return errors.Join(errs...)
}
