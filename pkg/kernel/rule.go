package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"weft/pkg/kstate"
)

// The compiler from the language of kstate.Chain.Rules to nftables expressions.
//
//	text --words--> matches and statements --expressions--> kernel
//	  \--------------- comment of the rule ---------------/
//
// The text itself travels with the rule, as its comment. Observe compiles it again and compares with the expressions
// that it finds, so a rule whose comment lies does not pass for the rule that was wanted.

// maxRule is the longest text of one rule in bytes: NFT_USERDATA_MAXLEN (linux/netfilter/nf_tables.h) is 256, less the
// comment's type, length and closing NUL.
const maxRule = 253

// rule is the compiled form of one line.
type rule struct {
	text     string
	exprs    []expr.Any
	counters []string // names of the counters it refers to
	// ports are the elements of the rule's anonymous set, sorted; its expr.Lookup has an empty SetName until then.
	ports []uint16
}

// compileRules compiles the lines of a chain.
func compileRules(family kstate.Family, rules string) ([]rule, error) {
	if rules == "" {
		return nil, nil
	}
	var out []rule
	for i, line := range strings.Split(rules, "\n") {
		r, err := compileRule(family, line)
		if err != nil {
			return nil, fmt.Errorf("compile rule %d %q: %w", i+1, line, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// compileRule compiles one line. The error names the word at fault.
func compileRule(family kstate.Family, text string) (rule, error) {
	c := compiler{family: family, words: strings.Fields(text)}
	c.text = text
	if len(text) > maxRule {
		return rule{}, fmt.Errorf("longer than %d bytes", maxRule)
	}
	if len(c.words) == 0 {
		return rule{}, errors.New("empty rule")
	}
	if strings.Join(c.words, " ") != text {
		return rule{}, errors.New("words must be separated by single spaces")
	}
	for len(c.words) > 0 {
		if c.ended {
			return rule{}, fmt.Errorf("word %q after the verdict", c.words[0])
		}
		if err := c.next(); err != nil {
			return rule{}, err
		}
	}
	return c.rule, nil
}

// compiler is the state between two words.
type compiler struct {
	rule
	family kstate.Family
	words  []string
	l3     string // "ip", "ip6", "arp" once matched
	l4     byte   // IP protocol once matched
	dport  bool   // udp dport was matched
	ended  bool   // the verdict was seen
}

// take returns the next word, "" at the end.
func (c *compiler) take() string {
	if len(c.words) == 0 {
		return ""
	}
	w := c.words[0]
	c.words = c.words[1:]
	return w
}

// accept consumes the given words if they come next.
func (c *compiler) accept(words ...string) bool {
	if len(c.words) < len(words) || !slices.Equal(c.words[:len(words)], words) {
		return false
	}
	c.words = c.words[len(words):]
	return true
}

func (c *compiler) emit(e ...expr.Any) { c.exprs = append(c.exprs, e...) }

// next compiles one match or statement.
func (c *compiler) next() error {
	switch w := c.words[0]; w {
	case "iifname", "oifname", "ip", "vni", "arp":
		return c.match()
	case "ether":
		if c.accept("ether", "type") {
			return c.layer3(c.take())
		}
		return c.match()
	case "icmp":
		c.take()
		return c.protocol("ip", unix.IPPROTO_ICMP, w)
	case "icmpv6":
		c.take()
		return c.protocol("ip6", unix.IPPROTO_ICMPV6, w)
	case "udp":
		if !c.accept("udp", "dport") {
			return fmt.Errorf("word %q: want \"udp dport\"", w)
		}
		return c.udpPort()
	default:
		return c.statement(c.take())
	}
}

// statement compiles what follows the matches.
func (c *compiler) statement(w string) error {
	switch w {
	case "skuid":
		// The load breaks off for a packet without a socket; any owner at all satisfies the comparison.
		c.emit(&expr.Meta{Key: expr.MetaKeySKUID, Register: 1},
			&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: make([]byte, 4)})
	case "ct":
		if c.accept("status", "dnat") {
			c.ctBits(expr.CtKeySTATUS, ctStatusDNAT)
			return nil
		}
		if !c.accept("state", "established,related") {
			return fmt.Errorf("word %q: want \"ct state established,related\" or \"ct status dnat\"", w)
		}
		c.ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	case "counter":
		name := c.take()
		if !validName(name) {
			return fmt.Errorf("word %q: not a counter name", name)
		}
		c.counters = append(c.counters, name)
		c.emit(&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name})
	case "accept", "drop":
		kind := expr.VerdictAccept
		if w == "drop" {
			kind = expr.VerdictDrop
		}
		c.emit(&expr.Verdict{Kind: kind})
		c.ended = true
	case "masquerade":
		c.emit(&expr.Masq{})
		c.ended = true
	case "snat":
		c.ended = true
		return c.snat()
	default:
		return fmt.Errorf("word %q: unknown", w)
	}
	return nil
}

// ctStatusDNAT is IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h): the connection's destination was changed.
const ctStatusDNAT = 1 << 5

// ctBits matches connections of which any of the bits is set.
func (c *compiler) ctBits(key expr.CtKey, bits uint32) {
	c.emit(&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)})
}

func (c *compiler) snat() error {
	if !c.accept("to") {
		return errors.New("word \"snat\": want \"snat to ADDRESS\"")
	}
	w := c.take()
	a, err := netip.ParseAddr(w)
	if err != nil || !a.Is4() {
		return fmt.Errorf("word %q: not an IPv4 address", w)
	}
	if err := c.layer3("ip"); err != nil {
		return err
	}
	c.emit(&expr.Immediate{Register: 1, Data: a.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1})
	return nil
}

// layer3 makes sure that what follows sees only packets of one protocol, as nft does by itself.
func (c *compiler) layer3(proto string) error {
	if c.l3 == proto {
		return nil
	}
	if c.l3 != "" {
		return fmt.Errorf("word %q: the rule already matches %s", proto, c.l3)
	}
	etherType, nfproto := uint16(0), byte(0)
	switch proto {
	case "ip":
		etherType, nfproto = unix.ETH_P_IP, unix.NFPROTO_IPV4
	case "ip6":
		etherType, nfproto = unix.ETH_P_IPV6, unix.NFPROTO_IPV6
	case "arp":
		etherType = unix.ETH_P_ARP
	default:
		return fmt.Errorf("word %q: not an ether type (arp, ip, ip6)", proto)
	}
	switch {
	case c.family == kstate.BridgeFamily:
		c.emit(&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, eq(binaryutil.BigEndian.PutUint16(etherType)))
	case c.family == kstate.Inet && nfproto != 0:
		c.emit(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, eq([]byte{nfproto}))
	case c.family == kstate.IPv4Family && proto == "ip":
	default:
		return fmt.Errorf("word %q: never seen in family %q", proto, c.family)
	}
	c.l3 = proto
	return nil
}

// protocol matches the IP protocol; l3 "" means either version.
func (c *compiler) protocol(l3 string, proto byte, word string) error {
	if l3 != "" {
		if err := c.layer3(l3); err != nil {
			return err
		}
	}
	if c.l4 != 0 || c.l3 == "arp" {
		return fmt.Errorf("word %q: the rule already matches another protocol", word)
	}
	c.l4 = proto
	c.emit(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, eq([]byte{proto}))
	return nil
}

func (c *compiler) udpPort() error {
	if err := c.protocol("", unix.IPPROTO_UDP, "udp"); err != nil {
		return err
	}
	c.dport = true
	c.emit(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
	if !c.accept("{") {
		p, err := port(c.take())
		c.emit(eq(binaryutil.BigEndian.PutUint16(p)))
		return err
	}
	for {
		w := c.take()
		p, err := port(strings.TrimSuffix(w, ","))
		if err != nil {
			return err
		}
		if slices.Contains(c.ports, p) {
			return fmt.Errorf("word %q: named twice", w)
		}
		c.ports = append(c.ports, p)
		if !strings.HasSuffix(w, ",") {
			break
		}
	}
	if !c.accept("}") {
		return errors.New("word \"{\": not closed")
	}
	slices.Sort(c.ports)
	c.emit(&expr.Lookup{SourceRegister: 1})
	return nil
}

func port(w string) (uint16, error) {
	n, err := strconv.ParseUint(w, 10, 16)
	if err != nil || n == 0 || w[0] == '0' || w[0] == '+' {
		return 0, fmt.Errorf("word %q: not a port", w)
	}
	return uint16(n), nil
}

func eq(data []byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

// validName says whether s can name a counter or a set of ours.
func validName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.' {
			return false
		}
	}
	return true
}
