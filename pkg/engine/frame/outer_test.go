package frame

import (
	"math/rand/v2"
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

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
