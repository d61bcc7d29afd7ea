package frame

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// spec describes a TCP or UDP frame to be made.
type spec struct {
	vlans      int
	v6, tcp    bool
	ipOptions  int // bytes, a multiple of 4, IPv4 only
	tcpOptions int // bytes, a multiple of 4
	flags      byte
	seq        uint32
	id         uint16
	tos        byte
	payload    []byte
}

// build makes the frame, with the checksums that gVisor computes.
func (s spec) build() []byte {
	b := []byte{2, 0x99, 0, 0, 0, 1, 2, 0x99, 0, 0, 0, 2}
	for i := range s.vlans {
		b = append(b, 0x81, 0, 0, byte(10+i))
	}
	l4len := 8
	if s.tcp {
		l4len = 20 + s.tcpOptions
	}
	var l3 int
	if s.v6 {
		b = append(b, 0x86, 0xdd)
		l3 = len(b)
		b = append(b, make([]byte, 40)...)
		src, dst := make([]byte, 16), make([]byte, 16)
		src[0], src[15], dst[0], dst[15] = 0xfd, 1, 0xfd, 2
		ip := b[l3:]
		ip[0], ip[1], ip[7] = 0x60|s.tos>>4, s.tos<<4, 64
		ip[6] = s.proto()
		be.PutUint16(ip[4:], uint16(l4len+len(s.payload)))
		copy(ip[8:], src)
		copy(ip[24:], dst)
	} else {
		b = append(b, 0x08, 0)
		l3 = len(b)
		b = append(b, make([]byte, 20+s.ipOptions)...)
		ip := b[l3:]
		ip[0], ip[1], ip[6], ip[8], ip[9] = 0x40|byte(5+s.ipOptions/4), s.tos, 0x40, 64, s.proto()
		be.PutUint16(ip[2:], uint16(len(ip)+l4len+len(s.payload)))
		be.PutUint16(ip[4:], s.id)
		copy(ip[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
		for i := range s.ipOptions {
			ip[20+i] = 1 // no operation
		}
		be.PutUint16(ip[10:], ^checksum.Checksum(ip, 0))
	}
	l4 := make([]byte, l4len)
	be.PutUint16(l4, 40000)
	be.PutUint16(l4[2:], 5201)
	if s.tcp {
		be.PutUint32(l4[4:], s.seq)
		be.PutUint32(l4[8:], 77)
		l4[12], l4[13] = byte(l4len/4)<<4, s.flags
		be.PutUint16(l4[14:], 501)
		for i := range s.tcpOptions {
			l4[20+i] = 1
		}
	} else {
		be.PutUint16(l4[4:], uint16(8+len(s.payload)))
	}
	b = append(append(b, l4...), s.payload...)
	fixTransport(b, l3, s.v6, s.tcp)
	return b
}

func (s spec) proto() byte {
	if s.tcp {
		return protoTCP
	}
	return protoUDP
}

func (s spec) l4() int {
	if s.v6 {
		return 14 + 4*s.vlans + 40
	}
	return 14 + 4*s.vlans + 20 + s.ipOptions
}

// fixTransport computes the transport checksum with gVisor.
func fixTransport(b []byte, l3 int, v6, tcp bool) {
	l4, at := ipLen(b[l3:], v6)+l3, udpCsum
	if tcp {
		at = tcpCsum
	}
	be.PutUint16(b[l4+at:], 0)
	c := ^transportSum(b, l3, v6)
	if c == 0 && !tcp {
		c = 0xffff
	}
	be.PutUint16(b[l4+at:], c)
}

func ipLen(ip []byte, v6 bool) int {
	if v6 {
		return 40
	}
	return int(ip[0]&15) * 4
}

// transportSum is 0xffff for a frame with a right checksum.
func transportSum(b []byte, l3 int, v6 bool) uint16 {
	l4 := l3 + ipLen(b[l3:], v6)
	var ph uint16
	n := uint16(len(b) - l4)
	if v6 {
		ip := header.IPv6(b[l3:])
		ph = header.PseudoHeaderChecksum(ip.TransportProtocol(), ip.SourceAddress(), ip.DestinationAddress(), n)
	} else {
		ip := header.IPv4(b[l3:])
		ph = header.PseudoHeaderChecksum(ip.TransportProtocol(), ip.SourceAddress(), ip.DestinationAddress(), n)
	}
	return checksum.Checksum(b[l4:], ph)
}

// large turns a frame into one that is to be cut: its checksum is that of the pseudo header.
func (s spec) large(size int) (VNet, []byte) {
	b := s.build()
	v := VNet{Flags: NeedsCsum, GSOType: GSOUDPL4, GSOSize: uint16(size), CsumStart: uint16(s.l4()), CsumOffs: udpCsum}
	switch {
	case s.tcp && s.v6:
		v.GSOType, v.CsumOffs = GSOTCPv6, tcpCsum
	case s.tcp:
		v.GSOType, v.CsumOffs = GSOTCPv4, tcpCsum
	}
	be.PutUint16(b[int(v.CsumStart+v.CsumOffs):], 0xdead) // Cut does not rely on it
	return v, b
}

// cutSlowly is the obvious twin of Cut: each segment is a frame made from scratch.
func (s spec) cutSlowly(size int) (out [][]byte) {
	for i := 0; ; i++ {
		one := s
		n := min(size, len(s.payload)-i*size)
		one.payload = s.payload[i*size : i*size+n]
		one.seq, one.id = s.seq+uint32(i*size), s.id+uint16(i)
		last := (i+1)*size >= len(s.payload)
		if i > 0 {
			one.flags &^= flagCWR
		}
		if !last {
			one.flags &^= flagFIN | flagPSH
		}
		out = append(out, one.build())
		if last {
			return out
		}
	}
}

func cutAll(v VNet, b []byte) ([][]byte, error) {
	var c Cut
	if err := c.Prepare(v, b, len(b)); err != nil {
		return nil, err
	}
	var out [][]byte
	for i := range c.Count() {
		seg := make([]byte, c.Len(i))
		copy(seg[c.Header:], b[c.Header+i*c.Size:])
		c.Finish(i, seg)
		out = append(out, seg)
	}
	return out, nil
}

func diff(t testing.TB, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("frame %d of %d differs:\n got %x\nwant %x", i, len(want), got[i][:min(len(got[i]), 100)], want[i][:min(len(want[i]), 100)])
		}
	}
}

// randomSpec takes its decisions from r.
func randomSpec(r *rand.Rand, most int) spec {
	s := spec{vlans: r.IntN(3), v6: r.IntN(2) == 0, tcp: r.IntN(2) == 0, seq: r.Uint32(), id: uint16(r.Uint32()), tos: byte(r.IntN(256))}
	s.flags = flagACK
	if r.IntN(2) == 0 {
		s.flags |= byte(r.Uint32()) & (flagFIN | flagPSH | flagCWR)
	}
	if !s.v6 && r.IntN(4) == 0 {
		s.ipOptions = 4 * r.IntN(11)
	}
	if s.tcp {
		s.tcpOptions = 4 * r.IntN(11)
	}
	s.payload = make([]byte, r.IntN(most+1))
	for i := range s.payload {
		s.payload[i] = byte(r.Uint32())
	}
	return s
}

func TestCutIsItsTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		s := randomSpec(r, 9000)
		size := 1 + r.IntN(1500)
		if r.IntN(3) == 0 {
			size = 1 + r.IntN(70)
		}
		v, b := s.large(size)
		got, err := cutAll(v, b)
		if err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		diff(t, got, s.cutSlowly(size))
		for _, g := range got {
			if transportSum(g, 14+4*s.vlans, s.v6) != 0xffff {
				t.Fatalf("checksum of %+v is wrong", s)
			}
		}
	}
}

// joinAll joins frames and returns what is written, as the kernel would have it: cut again where there is a GSO header.
func joinAll(t testing.TB, frames [][]byte) (out [][]byte, written int) {
	var j Joiner
	for _, f := range frames {
		j.Add(0, append(make([]byte, VNetLen+7), f...), VNetLen+7)
	}
	j.Emit(func(_ int, parts [][]byte, _ int) {
		written++
		b := bytes.Join(parts, nil)
		v, b := ParseVNet(b), b[VNetLen:]
		if v.GSOType == GSONone {
			if v.Flags != 0 {
				t.Fatalf("flags %x of a single frame", v.Flags)
			}
			out = append(out, b)
			return
		}
		segs, err := cutAll(v, b)
		if err != nil {
			t.Fatalf("joined frame cannot be cut: %v %+v", err, v)
		}
		if len(segs) < 2 {
			t.Fatal("joined frame of one segment")
		}
		checkPartial(t, v, b)
		out = append(out, segs...)
	})
	j.Reset()
	return out, written
}

// checkPartial verifies that the checksum field holds the pseudo header's sum, as the kernel expects.
func checkPartial(t testing.TB, v VNet, b []byte) {
	t.Helper()
	proto, l3 := etherType(b)
	got := be.Uint16(b[v.CsumStart+v.CsumOffs:])
	b = slices.Clone(b)
	be.PutUint16(b[v.CsumStart+v.CsumOffs:], 0)
	rest := checksum.Checksum(b[v.CsumStart:], 0)
	if want := checksum.Combine(transportSum(b, l3, proto == etherIPv6), ^rest); got != want && got+want != 0xffff {
		t.Fatalf("partial checksum %04x, want %04x", got, want)
	}
	if proto == etherIPv4 && checksum.Checksum(b[l3:int(v.CsumStart)], 0) != 0xffff {
		t.Fatal("IP checksum of a joined frame is wrong")
	}
}

// flowOf is what must keep its order: everything for frames that are no TCP or UDP.
func flowOf(b []byte) string {
	s, ok := parseSegment(b)
	if !ok {
		return "other"
	}
	addrs := s.frame[s.l3+12 : s.l3+20]
	if s.v6 {
		addrs = s.frame[s.l3+8 : s.l3+40]
	}
	return fmt.Sprintf("%d %v %x %x", s.l4, s.tcp, addrs, s.frame[s.l4:s.l4+4])
}

func perFlow(frames [][]byte) map[string][][]byte {
	out := map[string][][]byte{}
	for _, f := range frames {
		out[flowOf(f)] = append(out[flowOf(f)], f)
	}
	return out
}

// checkJoin is the property: cut and joined, every flow has the same bytes in the same order.
func checkJoin(t testing.TB, frames [][]byte) int {
	t.Helper()
	clones := make([][]byte, len(frames))
	for i, f := range frames {
		clones[i] = slices.Clone(f)
	}
	out, written := joinAll(t, clones)
	got, want := perFlow(out), perFlow(frames)
	if len(got) != len(want) {
		t.Fatalf("%d flows, want %d", len(got), len(want))
	}
	for k := range want {
		diff(t, got[k], want[k])
	}
	return written
}

func TestJoinWhole(t *testing.T) {
	for _, s := range []spec{
		{tcp: true, flags: flagACK | flagPSH, tcpOptions: 12}, {tcp: true, v6: true, flags: flagACK}, {}, {v6: true, vlans: 1}, {tcp: true, vlans: 2, flags: flagACK},
	} {
		s.payload = bytes.Repeat([]byte("weft "), 4000)
		if written := checkJoin(t, s.cutSlowly(1200)); written != 1 {
			t.Errorf("%+v: written as %d frames", s, written)
		}
	}
}

// TestJoinNever: each of these must stay apart from the segment before it.
func TestJoinNever(t *testing.T) {
	base := spec{tcp: true, flags: flagACK, tcpOptions: 12, payload: make([]byte, 2000)}
	for _, c := range []struct {
		name  string
		twist func([][]byte)
		fix   bool // compute the checksums again
	}{
		{"push on the first", func(f [][]byte) { f[0][14+20+13] |= flagPSH }, true},
		{"fin", func(f [][]byte) { f[1][14+20+13] |= flagFIN }, true},
		{"syn", func(f [][]byte) { f[1][14+20+13] |= flagSYN }, true},
		{"urgent", func(f [][]byte) { f[1][14+20+13] |= 0x20 }, true},
		{"ece", func(f [][]byte) { f[1][14+20+13] |= 0x40 }, true},
		{"cwr", func(f [][]byte) { f[1][14+20+13] |= flagCWR }, true},
		{"ecn mark", func(f [][]byte) { f[1][15] = 3 }, true},
		{"ttl", func(f [][]byte) { f[1][22]-- }, true},
		{"don't fragment", func(f [][]byte) { f[1][20] = 0 }, true},
		{"identification", func(f [][]byte) { f[1][19] += 5 }, true},
		{"options", func(f [][]byte) { f[1][14+20+25] = 0 }, true},
		{"window", func(f [][]byte) { f[1][14+20+15]++ }, true},
		{"acknowledgment", func(f [][]byte) { f[1][14+20+11]++ }, true},
		{"sequence", func(f [][]byte) { f[1][14+20+7]++ }, true},
		{"port", func(f [][]byte) { f[1][14+20+1]++ }, true},
		{"address", func(f [][]byte) { f[1][14+15]++ }, true},
		{"destination MAC", func(f [][]byte) { f[1][5]++ }, false},
		{"wrong checksum", func(f [][]byte) { f[1][14+20+16]++ }, false},
		{"wrong checksum of the first", func(f [][]byte) { f[0][14+20+16]++ }, false},
		{"wrong IP checksum", func(f [][]byte) { f[1][14+10]++ }, false},
		{"trailer", func(f [][]byte) { f[1] = append(f[1], 0, 0) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			frames := base.cutSlowly(1000)
			c.twist(frames)
			if c.fix {
				for _, f := range frames {
					be.PutUint16(f[24:], 0)
					be.PutUint16(f[24:], ^checksum.Checksum(f[14:34], 0))
					fixTransport(f, 14, false, true)
				}
			}
			if written := checkJoin(t, frames); written != 2 {
				t.Errorf("written as %d frames, want 2", written)
			}
		})
	}
}

// TestJoinMixed interleaves flows, loses and repeats segments, and spoils some.
func TestJoinMixed(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		checkJoin(t, randomFrames(r))
	}
}

func randomFrames(r *rand.Rand) [][]byte {
	var flows [][][]byte
	for range 1 + r.IntN(5) {
		s := randomSpec(r, 6000)
		f := s.cutSlowly(200 + r.IntN(1200))
		flows = append(flows, f)
	}
	var out [][]byte
	for len(flows) > 0 && len(out) < 128 {
		i := r.IntN(len(flows))
		f := flows[i][0]
		if flows[i] = flows[i][1:]; len(flows[i]) == 0 {
			flows = slices.Delete(flows, i, i+1)
		}
		switch r.IntN(40) {
		case 0:
			continue
		case 1:
			out = append(out, slices.Clone(f))
		case 2:
			f = slices.Clone(f)
			f[r.IntN(len(f))] ^= 1 << r.IntN(8)
		case 3:
			out = append(out, []byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 6, byte(len(out))})
		}
		out = append(out, f)
	}
	return out
}

// FuzzSegment: any header and frame either is refused or cut into frames that gVisor finds right, with all the payload.
func FuzzSegment(f *testing.F) {
	for _, s := range []spec{{tcp: true, flags: flagACK | flagPSH, tcpOptions: 12}, {v6: true}, {tcp: true, v6: true, vlans: 1}, {ipOptions: 4}} {
		s.payload = bytes.Repeat([]byte("weft"), 500)
		v, b := s.large(700)
		f.Add(v.Flags, v.GSOType, v.GSOSize, v.CsumStart, v.CsumOffs, b)
	}
	f.Fuzz(func(t *testing.T, flags, gso uint8, size, start, offs uint16, b []byte) {
		if len(b) > maxIPLen+14 {
			return
		}
		v := VNet{flags, gso, 0, size, start, offs}
		if v.GSOType == GSONone {
			_ = v.Complete(slices.Clone(b))
			return
		}
		segs, err := cutAll(v, b)
		if err != nil {
			return
		}
		var c Cut
		_ = c.Prepare(v, b, len(b))
		var payload []byte
		for i, s := range segs {
			payload = append(payload, s[c.Header:]...)
			if !bytes.Equal(s[:c.l3], b[:c.l3]) || len(s) != c.Len(i) {
				t.Fatalf("segment %d: Ethernet header changed, or length", i)
			}
			if proper(b, &c) {
				checkSegment(t, &c, i, s, b)
			}
		}
		if !bytes.Equal(payload, b[c.Header:]) {
			t.Fatal("payload changed")
		}
	})
}

// proper reports whether the IP header says what the virtio header says; else checksums have no meaning.
func proper(b []byte, c *Cut) bool {
	ip := b[c.l3:]
	if c.v6 {
		return c.l4 == c.l3+40 && ip[0]>>4 == 6 && ip[6] == map[bool]byte{true: protoTCP, false: protoUDP}[c.tcp]
	}
	return ip[0]>>4 == 4 && int(ip[0]&15)*4 == c.l4-c.l3 && ip[9] == map[bool]byte{true: protoTCP, false: protoUDP}[c.tcp]
}

func checkSegment(t *testing.T, c *Cut, i int, s, b []byte) {
	t.Helper()
	if transportSum(s, c.l3, c.v6) != 0xffff {
		t.Fatalf("segment %d: transport checksum", i)
	}
	if !c.v6 {
		if checksum.Checksum(s[c.l3:c.l4], 0) != 0xffff {
			t.Fatalf("segment %d: IP checksum", i)
		}
		if be.Uint16(s[c.l3+2:]) != uint16(len(s)-c.l3) || be.Uint16(s[c.l3+4:]) != be.Uint16(b[c.l3+4:])+uint16(i) {
			t.Fatalf("segment %d: length or identification", i)
		}
	}
	if c.tcp && be.Uint32(s[c.l4+4:]) != be.Uint32(b[c.l4+4:])+uint32(i*c.Size) {
		t.Fatalf("segment %d: sequence number", i)
	}
}

// FuzzCoalesce: any frames in, the same bytes out after join and cut. Frames are cut from data, each preceded by its
// length.
func FuzzCoalesce(f *testing.F) {
	pack := func(frames [][]byte) (b []byte) {
		for _, x := range frames {
			b = append(be.AppendUint16(b, uint16(len(x))), x...)
		}
		return b
	}
	s := spec{tcp: true, flags: flagACK | flagPSH, tcpOptions: 12, payload: make([]byte, 900)}
	f.Add(pack(s.cutSlowly(300)))
	s = spec{v6: true, payload: make([]byte, 900)}
	f.Add(pack(s.cutSlowly(300)))
	r := rand.New(rand.NewPCG(5, 6))
	f.Add(pack(randomFrames(r)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var frames [][]byte
		for len(b) > 2 && len(frames) < 128 {
			n := min(int(be.Uint16(b)), len(b)-2)
			if n >= etherLen {
				frames = append(frames, b[2:2+n])
			}
			b = b[2+n:]
		}
		checkJoin(t, frames)
	})
}

func TestSum(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for n := range 1500 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32()) | byte(0xff*r.IntN(2))
		}
		want := checksum.Checksum(b, 0)
		if got := fold(sum(b, 0)); got>>8|got<<8 != want {
			t.Fatalf("sum of %d bytes is %04x, want %04x", n, got, want)
		}
	}
}

func TestOuter(t *testing.T) {
	inner := spec{tcp: true, flags: flagACK, payload: []byte("hello")}.build()
	o := NewOuter([4]byte{100, 64, 0, 1}, [4]byte{100, 64, 0, 2}, 0xabcdef, 4789)
	p := append(make([]byte, OuterLen), inner...)
	o.Put(p, FlowHash(inner))
	ip := header.IPv4(p)
	if !ip.IsValid(len(p)) || !ip.IsChecksumValid() || ip.Flags() != header.IPv4FlagDontFragment {
		t.Errorf("IP header %x", p[:20])
	}
	udp := header.UDP(ip.Payload())
	if udp.DestinationPort() != 4789 || udp.SourcePort() < 49152 || udp.Checksum() != 0 || int(udp.Length()) != len(p)-20 {
		t.Errorf("UDP header %x", p[20:28])
	}
	if kind, vni, at, ce := ParseOuter(p, 4789); kind != VXLAN || vni != 0xabcdef || at != OuterLen || ce {
		t.Errorf("parsed as %v %x %d", kind, vni, at)
	}
	for name, twist := range map[string]func([]byte) []byte{
		"other flag":      func(b []byte) []byte { b[28] |= 0x80; return b },
		"no VNI flag":     func(b []byte) []byte { b[28] = 0; return b },
		"reserved byte":   func(b []byte) []byte { b[35] = 1; return b },
		"short":           func(b []byte) []byte { return b[:OuterLen+13] },
		"length of UDP":   func(b []byte) []byte { b[25]++; return b },
		"length of UDP 0": func(b []byte) []byte { b[24], b[25] = 0, 0; return b },
	} {
		if kind, _, _, _ := ParseOuter(twist(slices.Clone(p)), 4789); kind != Malformed {
			t.Errorf("%s: %v", name, kind)
		}
	}
	for name, twist := range map[string]func([]byte){
		"other port": func(b []byte) { b[23]++ }, "TCP": func(b []byte) { b[9] = 6 },
		"fragment": func(b []byte) { b[7] = 1 }, "first fragment": func(b []byte) { b[6] = 0x20 }, "IPv6": func(b []byte) { b[0] = 0x60 },
	} {
		b := slices.Clone(p)
		twist(b)
		if kind, _, _, _ := ParseOuter(b, 4789); kind != Other {
			t.Errorf("%s: %v", name, kind)
		}
	}
}

func TestMarkCE(t *testing.T) {
	for _, tt := range []struct {
		v6   bool
		tos  byte
		want byte
		ok   bool
	}{{false, 0, 0, false}, {false, 1, 3, true}, {false, 2, 3, true}, {false, 3, 3, true}, {true, 0, 0, false}, {true, 2, 3, true}} {
		b := spec{v6: tt.v6, tos: tt.tos, payload: []byte("x")}.build()
		ok := MarkCE(b)
		tos := b[15]
		if tt.v6 {
			tos = b[14]<<4 | b[15]>>4
		} else if checksum.Checksum(b[14:34], 0) != 0xffff {
			t.Errorf("%+v: IP checksum", tt)
		}
		if ok != tt.ok || ok && tos != tt.want {
			t.Errorf("%+v: %v, tos %d", tt, ok, tos)
		}
	}
}

// FuzzOuter: nothing that comes from a peer makes the parsers panic.
func FuzzOuter(f *testing.F) {
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, _, at, _ := ParseOuter(b, 4789)
		if kind == VXLAN {
			MarkCE(b[at:])
			FlowHash(b[at:])
		}
	})
}

func BenchmarkSum(b *testing.B) {
	buf := make([]byte, 1318)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		sum(buf, 0)
	}
}
