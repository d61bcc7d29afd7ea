package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// toolEnv makes the test binary a tool: it is started so inside the lab's hosts and endpoints.
const toolEnv = "WEFT_E2E_TOOL"

// toolMain runs the tool that args name and prints its result as JSON.
func toolMain(args []string) int {
	tools := map[string]func([]string) (any, error){"ping": toolPing, "listen": toolListen, "send": toolSend, "frame": toolFrame, "links": toolLinks, "monitor": toolMonitor,
		"sink": toolSink, "stream": toolStream,
		"names": toolNames, "serve": toolServe, "lookup": toolLookup,
		"drain": toolDrain, "flow": toolFlow, "kv": toolKV}
	if len(args) == 0 || tools[args[0]] == nil {
		fmt.Fprintln(os.Stderr, "e2e tool: unknown", args)
		return 2
	}
	v, err := tools[args[0]](args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e tool:", err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		return 1
	}
	return 0
}

// tool is the command line of a tool, to be run on a host or, with `weft exec`, in an endpoint.
func tool(args ...string) []string {
	self, err := os.Executable()
	if err != nil {
		panic("e2e: " + err.Error())
	}
	return append([]string{"/usr/bin/env", toolEnv + "=1", self}, args...)
}

// in makes argv run inside an endpoint.
func in(endpoint string, argv []string) []string {
	return append([]string{"weft", "exec", endpoint, "--"}, argv...)
}

// running is a tool that was started.
type running struct {
	t   *testing.T
	cmd *exec.Cmd
	out buffer
	err buffer
}

// buffer is written by the command and read by the test.
type buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs argv on a host in the background.
func (w *world) start(host string, argv []string) *running {
	w.t.Helper()
	r := &running{t: w.t, cmd: w.Command(host, argv...)}
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.err
	if err := r.cmd.Start(); err != nil {
		w.t.Fatalf("start %v on %s: %v", argv, host, err)
	}
	w.t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Process.Signal(syscall.SIGKILL)
			_ = r.cmd.Wait()
		}
	})
	return r
}

// result waits for the tool and reads its JSON into v.
func (r *running) result(v any) {
	r.t.Helper()
	if err := r.cmd.Wait(); err != nil {
		r.t.Fatalf("%v: %v\n%s", r.cmd.Args, err, r.err.String())
	}
	if err := json.Unmarshal([]byte(r.out.String()), v); err != nil {
		r.t.Fatalf("%v: %v\n%s", r.cmd.Args, err, r.out.String())
	}
}

// pings is what toolPing found.
type pings struct {
	Sent, Received int
	MaxGapMS       float64 // the longest time between two replies
	FirstMS        float64 // round trip of the first reply received
	Lost           []int   // sequence numbers
	Error          string  // the first error of a send, as "message too long"
}

// toolPing ADDRESS COUNT INTERVAL SIZE: ICMP echoes with DF set; SIZE is the whole IP packet. It prints "ready" on stderr
// when it begins.
func toolPing(args []string) (any, error) {
	var count, size int
	if len(args) != 4 {
		return nil, errors.New("usage: ping ADDRESS COUNT INTERVAL SIZE")
	}
	interval, err := time.ParseDuration(args[2])
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Sscan(args[1]+" "+args[3], &count, &size); err != nil {
		return nil, err
	}
	c, err := net.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	raw, err := c.(*net.IPConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { // IP_PMTUDISC_PROBE: DF set, no look at cached path MTUs
		serr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER, syscall.IP_PMTUDISC_PROBE)
	}); err != nil || serr != nil {
		return nil, errors.Join(err, serr)
	}
	fmt.Fprintln(os.Stderr, "ready")
	return ping(c, &net.IPAddr{IP: net.ParseIP(args[0])}, count, interval, size)
}

func ping(c net.PacketConn, to *net.IPAddr, count int, interval time.Duration, size int) (pings, error) {
	id := uint16(os.Getpid())
	type reply struct {
		seq int
		at  time.Time
	}
	replies := make(chan reply, count)
	go func() {
		defer close(replies)
		b := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if n >= 8 && b[0] == 0 && uint16(b[4])<<8|uint16(b[5]) == id && from.String() == to.String() {
				replies <- reply{int(b[6])<<8 | int(b[7]), time.Now()}
			}
		}
	}()
	p := pings{Sent: count}
	sent := make([]time.Time, count)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for seq := range count {
		m := make([]byte, max(size-20, 8))
		m[0], m[4], m[5], m[6], m[7] = 8, byte(id>>8), byte(id), byte(seq>>8), byte(seq)
		sum := checksum(m)
		m[2], m[3] = byte(sum>>8), byte(sum)
		sent[seq] = time.Now()
		if _, err := c.WriteTo(m, to); err != nil && p.Error == "" {
			p.Error = err.Error()
		}
		<-tick.C
	}
	time.Sleep(max(slow(500*time.Millisecond), interval))
	if err := c.Close(); err != nil {
		return p, err
	}
	got := map[int]time.Time{}
	for r := range replies {
		if _, again := got[r.seq]; !again {
			got[r.seq] = r.at
		}
	}
	p.Received = len(got)
	var at []time.Time
	for seq := range count {
		t, ok := got[seq]
		if !ok {
			p.Lost = append(p.Lost, seq)
			continue
		}
		if len(at) == 0 {
			p.FirstMS = t.Sub(sent[seq]).Seconds() * 1e3
		}
		at = append(at, t)
	}
	sort.Slice(at, func(i, j int) bool { return at[i].Before(at[j]) })
	for i := 1; i < len(at); i++ {
		p.MaxGapMS = max(p.MaxGapMS, at[i].Sub(at[i-1]).Seconds()*1e3)
	}
	return p, nil
}

func checksum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// heard is what toolListen received.
type heard struct{ Packets []string }

// toolListen PORT DURATION prints "ready" on stderr when it listens, then the UDP payloads it received.
func toolListen(args []string) (any, error) {
	d, err := time.ParseDuration(args[1])
	if err != nil {
		return nil, err
	}
	c, err := net.ListenPacket("udp4", ":"+args[0])
	if err != nil {
		return nil, err
	}
	defer c.Close()
	fmt.Fprintln(os.Stderr, "ready")
	if err := c.SetDeadline(time.Now().Add(d)); err != nil {
		return nil, err
	}
	h := heard{Packets: []string{}}
	b := make([]byte, 65536)
	for {
		n, _, err := c.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return h, nil
		}
		if err != nil {
			return nil, err
		}
		h.Packets = append(h.Packets, string(b[:n]))
	}
}

// toolSend ADDRESS:PORT HEX COUNT [UID]: UDP datagrams, as user UID.
func toolSend(args []string) (any, error) {
	var payload []byte
	var count int
	if _, err := fmt.Sscanf(args[1]+" "+args[2], "%x %d", &payload, &count); err != nil {
		return nil, err
	}
	if len(args) > 3 {
		var uid int
		if _, err := fmt.Sscan(args[3], &uid); err != nil {
			return nil, err
		}
		if err := syscall.Setuid(uid); err != nil {
			return nil, err
		}
	}
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var serr error
		err := raw.Control(func(fd uintptr) { serr = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_BROADCAST, 1) })
		return errors.Join(err, serr)
	}}
	c, err := d.Dial("udp4", args[0])
	if err != nil {
		return nil, err
	}
	defer c.Close()
	sent := 0
	for range count {
		if _, err := c.Write(payload); err == nil { // EPERM is the fence's answer
			sent++
		}
		time.Sleep(2 * time.Millisecond)
	}
	return map[string]int{"sent": sent}, nil
}

// toolFrame INTERFACE HEX COUNT: raw Ethernet frames.
func toolFrame(args []string) (any, error) {
	var frame []byte
	var count int
	if _, err := fmt.Sscanf(args[1]+" "+args[2], "%x %d", &frame, &count); err != nil {
		return nil, err
	}
	i, err := net.InterfaceByName(args[0])
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	to := &syscall.SockaddrLinklayer{Ifindex: i.Index, Halen: 6}
	for range count {
		if err := syscall.Sendto(fd, frame, 0, to); err != nil {
			return nil, err
		}
		time.Sleep(2 * time.Millisecond)
	}
	return map[string]int{"sent": count}, nil
}

// toolLinks lists the interfaces of its namespace: name and index.
func toolLinks([]string) (any, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, i := range all {
		out[i.Name] = i.Index
	}
	return out, nil
}

// ping pings from an endpoint; it fails the test when the tool itself fails.
func (w *world) ping(host, endpoint, address string, count int, interval time.Duration, size int) pings {
	w.t.Helper()
	var p pings
	w.startPing(host, endpoint, address, count, interval, size).result(&p)
	return p
}

// startPing returns when the first packet is on its way, however long it takes to start the tool.
func (w *world) startPing(host, endpoint, address string, count int, interval time.Duration, size int) *running {
	w.t.Helper()
	r := w.start(host, in(endpoint, tool("ping", address, fmt.Sprint(count), interval.String(), fmt.Sprint(size))))
	w.ready(r, "ping in "+endpoint)
	return r
}

// ready waits until a tool says that it has begun.
func (w *world) ready(r *running, what string) {
	w.t.Helper()
	w.eventually(5*time.Second, what, func() error {
		if said := r.err.String(); !strings.Contains(said, "ready") {
			return fmt.Errorf("not ready: %s", said)
		}
		return nil
	})
}

// listen starts a UDP listener in an endpoint and waits until it listens.
func (w *world) listen(host, endpoint string, port int, d time.Duration) *running {
	w.t.Helper()
	r := w.start(host, in(endpoint, tool("listen", fmt.Sprint(port), d.String())))
	w.ready(r, "listener in "+endpoint)
	return r
}
