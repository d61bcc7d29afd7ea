package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// selector is a part of a packet that a match looks at.
type selector struct {
	words  []string
	layer3 string // what the packet must be for the field to be there
	load   expr.Any
	size   int // bytes in a set's key; each field begins at a multiple of 4 (NFT_REG32_SIZE)
}

// selectors in the order in which they are tried: the longer of two with a common beginning first.
var selectors = []selector{
	{words: []string{"iifname"}, load: &expr.Meta{Key: expr.MetaKeyIIFNAME}, size: unix.IFNAMSIZ},
	{words: []string{"oifname"}, load: &expr.Meta{Key: expr.MetaKeyOIFNAME}, size: unix.IFNAMSIZ},
	{words: []string{"ip", "saddr"}, layer3: "ip", load: &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}, size: 4},
	{words: []string{"ip", "daddr"}, layer3: "ip", load: &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}, size: 4},
	// RFC 7348 section 5: the VNI is 24 bits at byte 4 of the VXLAN header, which follows 8 bytes of UDP. The reserved
	// byte behind it is not looked at: a packet must not slip past the fence by setting it.
	{words: []string{"vni"}, load: &expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 12, Len: 3}, size: 4},
	{words: []string{"ether", "saddr"}, load: &expr.Payload{Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6}, size: 8},
	// RFC 826 with Ethernet and IPv4: sender hardware address at 8, sender protocol address at 14.
	{words: []string{"arp", "saddr", "ether"}, layer3: "arp", load: &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 6}, size: 8},
	{words: []string{"arp", "saddr", "ip"}, layer3: "arp", load: &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 14, Len: 4}, size: 4},
}

// match compiles SELECTOR [. SELECTOR ...] (@SET | [!=] VALUE).
func (c *compiler) match() error {
	var sels []selector
	for {
		s, err := c.selector()
		if err != nil {
			return err
		}
		sels = append(sels, s)
		if !c.accept(".") {
			break
		}
	}
	for _, s := range sels {
		if s.layer3 == "" {
			continue
		}
		if err := c.layer3(s.layer3); err != nil {
			return err
		}
	}
	offset := 0
	for _, s := range sels {
		c.emit(loadAt(s.load, offset))
		offset += s.size
	}
	op := expr.CmpOpEq
	if c.accept("!=") {
		op = expr.CmpOpNeq
	}
	w := c.take()
	if set, ok := strings.CutPrefix(w, "@"); ok {
		if op != expr.CmpOpEq || !validName(set) {
			return fmt.Errorf("word %q: not a set that can be matched", w)
		}
		c.emit(&expr.Lookup{SourceRegister: 1, SetName: set})
		return nil
	}
	if len(sels) > 1 {
		return fmt.Errorf("word %q: fields joined by \".\" need a set", w)
	}
	return c.value(sels[0], op, w)
}

func (c *compiler) selector() (selector, error) {
	for _, s := range selectors {
		if !c.accept(s.words...) {
			continue
		}
		if s.words[0] == "vni" && !c.dport {
			return s, fmt.Errorf("word %q: only after \"udp dport\"", "vni")
		}
		if s.words[0] == "ether" && c.family != "bridge" {
			return s, fmt.Errorf("word %q: never seen in family %q", "ether", c.family)
		}
		return s, nil
	}
	return selector{}, fmt.Errorf("word %q: not a field that can be matched", c.take())
}

// loadAt is the expression that loads a field to a byte offset in the registers. A register that begins at a multiple
// of 16 bytes has the old name (NFT_REG_1 and so on); the kernel reports it so.
func loadAt(load expr.Any, offset int) expr.Any {
	reg := uint32(unix.NFT_REG32_00 + offset/4)
	if offset%16 == 0 {
		reg = uint32(unix.NFT_REG_1 + offset/16)
	}
	switch l := load.(type) {
	case *expr.Meta:
		return &expr.Meta{Key: l.Key, Register: reg}
	case *expr.Payload:
		return &expr.Payload{DestRegister: reg, Base: l.Base, Offset: l.Offset, Len: l.Len}
	}
	panic("kernel: selector without a load")
}

// value compiles the comparison of one field with a literal.
func (c *compiler) value(s selector, op expr.CmpOp, w string) error {
	switch s.words[len(s.words)-1] {
	case "iifname", "oifname":
		data, err := ifname(w)
		c.emit(&expr.Cmp{Op: op, Register: 1, Data: data})
		return err
	case "saddr", "daddr", "ip":
		if s.layer3 != "" {
			return c.address(op, w)
		}
	case "ether":
		hw, err := net.ParseMAC(w)
		if err != nil || len(hw) != 6 {
			return fmt.Errorf("word %q: not a MAC address", w)
		}
		c.emit(&expr.Cmp{Op: op, Register: 1, Data: hw})
		return nil
	}
	return fmt.Errorf("word %q: %s needs a set", w, strings.Join(s.words, " "))
}

func (c *compiler) address(op expr.CmpOp, w string) error {
	p, err := netip.ParsePrefix(w)
	if !strings.Contains(w, "/") {
		var a netip.Addr
		a, err = netip.ParseAddr(w)
		p = netip.PrefixFrom(a, 32)
	}
	if err != nil || !p.Addr().Is4() || p != p.Masked() {
		return fmt.Errorf("word %q: not an IPv4 address or prefix", w)
	}
	if p.Bits() < 32 {
		c.emit(&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: net.CIDRMask(p.Bits(), 32), Xor: make([]byte, 4)})
	}
	c.emit(&expr.Cmp{Op: op, Register: 1, Data: p.Addr().AsSlice()})
	return nil
}

// ifname is the bytes to compare an interface name with: all 16 for a name, only the given ones for a PREFIX*.
func ifname(w string) ([]byte, error) {
	name, wild := strings.CutSuffix(w, "*")
	if name == "" || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/*@!{}\x00") {
		return nil, fmt.Errorf("word %q: not an interface name", w)
	}
	data := []byte(name)
	if !wild {
		data = append(data, make([]byte, unix.IFNAMSIZ-len(data))...)
	}
	return data, nil
}
