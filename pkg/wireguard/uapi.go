package wireguard

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"weft/keys"
)

// The engine's control protocol is WireGuard's cross-platform one (wireguard.com/xplatform), which wgctrl speaks as well,
// but without any time-out: an engine that is stopped accepts the connection and never answers. So this package speaks
// it itself, and to one socket at a time, so that somebody else's hung device is none of our business.

// answerTimeout bounds one request, by the monotonic clock. A loaded engine with hundreds of peers answers in
// milliseconds.
const answerTimeout = 2 * time.Second

// socketPath is where a userspace device's control socket is, by the convention of wg(8).
func socketPath(device string) string { return "/var/run/wireguard/" + device + ".sock" }

// uapi is the control of a userspace device.
type uapi struct {
	path    string
	timeout time.Duration
}

func engineControl(device string) uapi { return uapi{path: socketPath(device), timeout: answerTimeout} }

// get returns an os.ErrNotExist when nobody listens, and an os.ErrDeadlineExceeded when nobody answers.
func (u uapi) get() (s status, err error) {
	err = u.do("get=1\n\n", func(r io.Reader) error {
		s, err = parseStatus(r)
		return err
	})
	return s, err
}

func (u uapi) set(p patch) error {
	return u.do(encodePatch(p), func(r io.Reader) error {
		_, err := parseStatus(r)
		return err
	})
}

func (u uapi) do(request string, answer func(io.Reader) error) error {
	deadline := time.Now().Add(u.timeout)
	c, err := (&net.Dialer{Deadline: deadline}).Dial("unix", u.path)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("engine is not running: %w: %w", os.ErrNotExist, err)
	}
	if err != nil {
		return fmt.Errorf("reach engine: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := io.WriteString(c, request); err != nil {
		return fmt.Errorf("ask engine: %w", err)
	}
	if err := answer(c); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("engine does not answer within %s: %w", u.timeout, err)
		}
		return fmt.Errorf("ask engine: %w", err)
	}
	return nil
}

func encodePatch(p patch) string {
	var b strings.Builder
	b.WriteString("set=1\n")
	if p.key != nil {
		k := p.key.Reveal()
		fmt.Fprintf(&b, "private_key=%x\n", k[:])
	}
	if p.port != nil {
		fmt.Fprintf(&b, "listen_port=%d\n", *p.port)
	}
	for _, peer := range p.peers {
		encodePeer(&b, peer)
	}
	b.WriteString("\n")
	return b.String()
}

func encodePeer(b *strings.Builder, p peerPatch) {
	fmt.Fprintf(b, "public_key=%x\n", p.key[:])
	if p.remove {
		b.WriteString("update_only=true\nremove=true\n") // or an absent peer would be made first
		return
	}
	if p.psk != nil {
		k := p.psk.Reveal()
		fmt.Fprintf(b, "preshared_key=%x\n", k[:])
	}
	if p.endpoint.IsValid() {
		fmt.Fprintf(b, "endpoint=%s\n", p.endpoint)
	}
	if p.setAllowed {
		b.WriteString("replace_allowed_ips=true\n")
		for _, a := range p.allowed {
			fmt.Fprintf(b, "allowed_ip=%s\n", a)
		}
	}
	if p.keepalive == nil {
		return
	}
	line := fmt.Sprintf("persistent_keepalive_interval=%d\n", *p.keepalive)
	b.WriteString(line)
	if p.quiet {
		b.WriteString(line) // wireguard-go initiates when the last of these lines turned it on
	}
}

// maxAnswer bounds what an engine may say, in bytes: 65,535 peers (the most wireguard-go takes) need a third of it.
const maxAnswer = 64 << 20

// errAnswer never quotes the line: it may hold a key.
var errAnswer = errors.New("malformed answer")

// parseStatus reads the answer to get=1 or set=1 up to the empty line that ends it. A number other than errno=0 is
// returned as that syscall.Errno.
func parseStatus(r io.Reader) (status, error) {
	var s status
	var ended bool
	lines := bufio.NewScanner(io.LimitReader(r, maxAnswer))
	for lines.Scan() {
		if lines.Text() == "" {
			if !ended {
				return status{}, errAnswer
			}
			return s, nil
		}
		name, value, ok := strings.Cut(lines.Text(), "=")
		if !ok || ended {
			return status{}, errAnswer
		}
		if name == "errno" {
			if err := parseErrno(value); err != nil {
				return status{}, err
			}
			ended = true
			continue
		}
		if err := s.parseLine(name, value); err != nil {
			return status{}, err
		}
	}
	if err := lines.Err(); err != nil {
		return status{}, err
	}
	return status{}, fmt.Errorf("answer cut short: %w", io.ErrUnexpectedEOF)
}

// parseErrno reads a result; wireguard-go reports negative numbers.
func parseErrno(value string) error {
	n, err := strconv.ParseInt(value, 10, 16)
	if err != nil {
		return errAnswer
	}
	if n == 0 {
		return nil
	}
	return syscall.Errno(max(n, -n))
}

// parseLine takes one line of an answer. Names it does not know are of a newer protocol and mean nothing to us.
func (s *status) parseLine(name, value string) error {
	if name == "public_key" {
		k, err := parseHex(value)
		if err != nil {
			return err
		}
		s.peers = append(s.peers, peerStatus{key: keys.PublicKey(k)})
		return nil
	}
	if len(s.peers) > 0 {
		return s.peers[len(s.peers)-1].parseLine(name, value)
	}
	switch name {
	case "private_key":
		k, err := parseHex(value)
		if err != nil || k == [keys.Size]byte{} {
			return err
		}
		private, err := keys.PrivateKeyFrom(k)
		s.public = private.Public()
		return err
	case "listen_port":
		n, err := parseUint(value, 16)
		s.port = uint16(n)
		return err
	}
	return nil
}

func (p *peerStatus) parseLine(name, value string) error {
	var n uint64
	var err error
	switch name {
	case "preshared_key":
		var k [keys.Size]byte
		if k, err = parseHex(value); err == nil && k != [keys.Size]byte{} {
			p.psk, err = keys.PresharedKeyFrom(k)
		}
	case "endpoint":
		if p.endpoint, err = netip.ParseAddrPort(value); err != nil {
			err = errAnswer
		}
		p.endpoint = netip.AddrPortFrom(p.endpoint.Addr().Unmap(), p.endpoint.Port())
	case "allowed_ip":
		var a netip.Prefix
		if a, err = netip.ParsePrefix(value); err != nil {
			return errAnswer
		}
		p.allowed = append(p.allowed, a)
	case "persistent_keepalive_interval":
		n, err = parseUint(value, 16)
		p.keepalive = int(n)
	case "last_handshake_time_sec":
		if n, err = parseUint(value, 40); n != 0 { // 40 bits last 34,000 years and still make a time.Time
			p.handshake = time.Unix(int64(n), 0)
		}
	case "last_handshake_time_nsec":
		if n, err = parseUint(value, 30); !p.handshake.IsZero() {
			p.handshake = p.handshake.Add(time.Duration(n))
		}
	case "rx_bytes":
		p.rx, err = parseUint(value, 64)
	case "tx_bytes":
		p.tx, err = parseUint(value, 64)
	}
	return err
}

func parseUint(value string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(value, 10, bits)
	if err != nil {
		return 0, errAnswer
	}
	return n, nil
}

func parseHex(value string) (k [keys.Size]byte, err error) {
	b, err := hex.DecodeString(value)
	if err != nil || len(b) != len(k) {
		return k, errAnswer
	}
	return [keys.Size]byte(b), nil
}
