package wireguard

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/keys"
	"weft/pkg/engine"
	"weft/pkg/kstate"
	"weft/pkg/netns"
)

// engineMain is what `weft engine` does.
func engineMain() error {
	f := flag.NewFlagSet("engine", flag.ExitOnError)
	device := f.String("device", "", "")
	ns := f.String("netns", "", "")
	mtu := f.Int("mtu", 0, "")
	_ = f.Parse(os.Args[2:])
	return engine.Run(context.Background(), engine.Config{Device: *device, NetNS: *ns, MTU: *mtu,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
}

// hostMain is process 1 of a simulated host: it holds the namespaces, and all in them ends with it.
func hostMain() error {
	signal.Ignore(unix.SIGCHLD) // the kernel reaps orphans
	for _, m := range []struct {
		src, dst, fs string
		flags        uintptr
	}{{"", "/", "none", unix.MS_REC | unix.MS_PRIVATE}, {"tmpfs", "/run", "tmpfs", 0}, {"proc", "/proc", "proc", 0}} {
		if err := unix.Mount(m.src, m.dst, m.fs, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dst, err)
		}
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends, however it does
	return nil
}

// Agent is a simulated host's agent; its methods are called over its standard input and output.
type Agent struct {
	backend Backend
	client  *Client
}

type stdio struct {
	io.Reader
	io.Writer
}

func (stdio) Close() error { return nil }

func agentMain() error {
	cfg := EngineConfig{LogFile: "/run/engine.log"}
	a := &Agent{backend: Engine(cfg)}
	if os.Args[2] == KernelName {
		a.backend = Kernel()
	}
	var err error
	if a.client, err = NewClient(); err != nil {
		return err
	}
	s := rpc.NewServer()
	if err := s.Register(a); err != nil {
		return err
	}
	s.ServeCodec(jsonrpc.NewServerCodec(stdio{os.Stdin, os.Stdout}))
	return a.client.Close()
}

type None struct{}

// SetupArgs describe a host.
type SetupArgs struct{ Underlay, VTEP, PeerVTEP string }

// Setup prepares the underlay and the transit namespace.
func (a *Agent) Setup(in SetupArgs, _ *None) error {
	if err := netns.Create(kstate.Transit); err != nil {
		return err
	}
	if err := address("", "u0", in.Underlay+"/24"); err != nil {
		return err
	}
	return address(kstate.Transit, "lo", in.VTEP+"/32")
}

func address(ns, link, prefix string) error {
	return netns.Do(ns, func() error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(prefix)
		if err != nil {
			return err
		}
		if err := netlink.AddrReplace(l, addr); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
}

// Move changes the underlay address.
func (a *Agent) Move(in [2]string, _ *None) error {
	l, err := netlink.LinkByName("u0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(in[0] + "/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrDel(l, addr); err != nil { // first, for it takes later ones of its network along
		return err
	}
	return address("", "u0", in[1]+"/24")
}

func (a *Agent) Create(_ None, _ *None) error {
	return a.backend.Create(context.Background(), "weftwg0", 1420)
}

func (a *Agent) Delete(_ None, _ *None) error {
	return a.backend.Delete(context.Background(), "weftwg0")
}

// DeviceArgs configure the device; the key travels bare, for a PrivateKey does not.
type DeviceArgs struct {
	Private [32]byte
	Port    uint16
}

func (a *Agent) SetDevice(in DeviceArgs, _ *None) error {
	k, err := keys.PrivateKeyFrom(in.Private)
	if err != nil {
		return err
	}
	return a.client.SetDevice(kstate.WGDevice{NS: kstate.Transit, Name: "weftwg0", PublicKey: k.Public(), Port: in.Port}, k)
}

// LinkUp sets the device up and the route to the peer's VTEP over it.
func (a *Agent) LinkUp(in SetupArgs, _ *None) error {
	return netns.Do(kstate.Transit, func() error {
		l, err := netlink.LinkByName("weftwg0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Src: net.ParseIP(in.VTEP), Scope: netlink.SCOPE_LINK,
			Dst: &net.IPNet{IP: net.ParseIP(in.PeerVTEP).To4(), Mask: net.CIDRMask(32, 32)}})
	})
}

// PeerArgs is a peer with its preshared key, all zero for none.
type PeerArgs struct {
	Peer kstate.WGPeer
	PSK  [32]byte
}

func (a *Agent) SetPeer(in PeerArgs, _ *None) error {
	if in.PSK == ([32]byte{}) {
		return a.client.SetPeer(in.Peer, nil)
	}
	psk, err := keys.PresharedKeyFrom(in.PSK)
	if err != nil {
		return err
	}
	return a.client.SetPeer(in.Peer, &psk)
}

// AddQuietly adds a peer without initiating, as a kernel device that is down would have it.
func (a *Agent) AddQuietly(p kstate.WGPeer, _ *None) error {
	allowed, err := splitPrefixes(p.AllowedIPs)
	if err != nil {
		return err
	}
	return engineControl(p.Device).set(patch{peers: []peerPatch{{key: p.PublicKey, endpoint: p.Endpoint, allowed: allowed,
		setAllowed: true, keepalive: &p.Keepalive, quiet: true}}})
}

func (a *Agent) RemovePeer(k keys.PublicKey, _ *None) error { return a.client.RemovePeer("weftwg0", k) }

func (a *Agent) Initiate(_ None, _ *None) error { return a.client.Initiate("weftwg0") }

// Observation is what Client.Observe returns.
type Observation struct {
	Devices []kstate.WGDevice
	Peers   []kstate.WGPeer
	Stats   []PeerStats
}

func (a *Agent) Observe(_ None, out *Observation) (err error) {
	out.Devices, out.Peers, out.Stats, err = a.client.Observe(time.Now())
	return err
}

// Identity is the engine's process id and the link's index.
func (a *Agent) Identity(_ None, out *[2]int) error {
	out[0], _ = enginePID()
	l, err := findLink("weftwg0")
	if err == nil {
		out[1] = l.Attrs().Index
	}
	return err
}

// Signal sends the engine a signal.
func (a *Agent) Signal(sig int, _ *None) error {
	pid, err := enginePID()
	if err != nil {
		return err
	}
	return unix.Kill(pid, unix.Signal(sig))
}

// Die ends the agent as kill -9 would.
func (a *Agent) Die(_ None, _ *None) error { return unix.Kill(os.Getpid(), unix.SIGKILL) }

// enginePID finds the engine among the processes of this process's namespaces.
func enginePID() (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		cmd, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		ns, _ := os.Readlink("/proc/" + e.Name() + "/ns/net")
		var pid int
		if _, err := fmt.Sscan(e.Name(), &pid); err == nil && ns == home && strings.Contains(string(cmd), "\x00engine\x00--device\x00") {
			return pid, nil
		}
	}
	return 0, os.ErrNotExist
}

// pingResult says what became of a stream of pings.
type pingResult struct {
	Sent, Received int
	FirstMS        float64 // from the first packet to the first answer
}

// pingMain sends COUNT pings to DST from the transit namespace, one each 10 ms, and waits a second for the last answer.
func pingMain() error {
	dst := netip.MustParseAddr(os.Args[2]).As4()
	var count int
	if _, err := fmt.Sscan(os.Args[3], &count); err != nil {
		return err
	}
	var fd int
	err := netns.Do(kstate.Transit, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
		return err
	})
	if err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return err
	}
	id := uint16(os.Getpid())
	start := time.Now()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range count {
			_ = unix.Sendto(fd, echo(id, uint16(i)), 0, &unix.SockaddrInet4{Addr: dst})
			if i == 0 {
				fmt.Println("started")
			}
			time.Sleep(time.Until(start.Add(time.Duration(i+1) * 10 * time.Millisecond)))
		}
	}()
	r := pingResult{Sent: count}
	seen := map[uint16]bool{}
	for buf := make([]byte, 1500); len(seen) < count; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			select {
			case <-sent:
			default:
				continue
			}
			break
		}
		if n < 28 || buf[20] != 0 || binary.BigEndian.Uint16(buf[24:]) != id {
			continue
		}
		if len(seen) == 0 {
			r.FirstMS = float64(time.Since(start).Microseconds()) / 1000
		}
		seen[binary.BigEndian.Uint16(buf[26:])] = true
	}
	r.Received = len(seen)
	return json.NewEncoder(os.Stdout).Encode(r)
}

// echo is an ICMP echo request (RFC 792).
func echo(id, seq uint16) []byte {
	b := make([]byte, 64)
	b[0] = 8
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum+sum>>16))
	return b
}
