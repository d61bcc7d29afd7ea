package kernel

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"weft/pkg/kstate"
)

func TestCompileRule(t *testing.T) {
	for name, c := range map[string]struct {
		family kstate.Family
		rule   string
		want   []expr.Any
	}{
		"name is padded": {kstate.Inet, "iifname lo accept", []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append([]byte("lo"), make([]byte, 14)...)},
			&expr.Verdict{Kind: expr.VerdictAccept}}},
		"prefix is not": {kstate.IPv4Family, "oifname weftx*", []expr.Any{
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("weftx")}}},
		"protocol is matched once": {kstate.Inet, "ip saddr 10.0.0.1 ip daddr 10.0.0.2", []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, eq([]byte{2}),
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}, eq([]byte{10, 0, 0, 1}),
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}, eq([]byte{10, 0, 0, 2})}},
		"pair fills two registers": {kstate.Inet, "udp dport 4789 ip saddr . vni @members", []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, eq([]byte{17}),
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, eq([]byte{0x12, 0xb5}),
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, eq([]byte{2}),
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
			&expr.Payload{DestRegister: 9, Base: expr.PayloadBaseTransportHeader, Offset: 12, Len: 3},
			&expr.Lookup{SourceRegister: 1, SetName: "members"}}},
		"name, then MAC, then address": {kstate.BridgeFamily, "iifname . ether saddr . ip saddr @src4", []expr.Any{
			&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, eq([]byte{8, 0}),
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Payload{DestRegister: 2, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
			&expr.Payload{DestRegister: 14, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
			&expr.Lookup{SourceRegister: 1, SetName: "src4"}}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := compileRule(c.family, c.rule)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, r.exprs); diff != "" {
				t.Errorf("expressions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCompileRuleErrors(t *testing.T) {
	for _, c := range []struct {
		family     kstate.Family
		rule, want string
	}{
		{kstate.Inet, "", "empty"},
		{kstate.Inet, "accept ", "single spaces"},
		{kstate.Inet, "accept drop", `"drop" after the verdict`},
		{kstate.Inet, "jump x", `"jump"`},
		{kstate.Inet, "iifname", `""`},
		{kstate.Inet, "iifname *", `"*"`},
		{kstate.Inet, "iifname sixteen-letters- drop", `"sixteen-letters-"`},
		{kstate.Inet, "ip saddr 10.0.0.1/8", `"10.0.0.1/8"`},
		{kstate.Inet, "ip saddr fe80::1", `"fe80::1"`},
		{kstate.Inet, "ip ttl 1", `"ip"`},
		{kstate.Inet, "ip saddr != @nodes", `"@nodes"`},
		{kstate.Inet, "udp dport 0", `"0"`},
		{kstate.Inet, "udp dport 65536", `"65536"`},
		{kstate.Inet, "udp dport { 1, 2", `"{"`},
		{kstate.Inet, "udp dport { 1, 1 }", `"1"`},
		{kstate.Inet, "udp sport 1", `"udp"`},
		{kstate.Inet, "icmp udp dport 1", `"udp"`},
		{kstate.Inet, "vni @vnis", `"vni"`},
		{kstate.Inet, "udp dport 1 vni 5", `"5"`},
		{kstate.Inet, "ip saddr . ip daddr 10.0.0.1", `"10.0.0.1"`},
		{kstate.Inet, "arp saddr ip 10.0.0.1", `"arp"`},
		{kstate.Inet, "ether saddr 02:00:00:00:00:01", `"ether"`},
		{kstate.Inet, "ether type ip6 ip saddr 10.0.0.1", `"ip"`},
		{kstate.BridgeFamily, "ether type ipx", `"ipx"`},
		{kstate.Inet, "counter", `""`},
		{kstate.Inet, "counter a@b", `"a@b"`},
		{kstate.Inet, "ct state new", `"ct"`},
		{kstate.Inet, "snat 10.0.0.1", `"snat"`},
		{kstate.Inet, "snat to x", `"x"`},
		{kstate.Inet, "iifname lo" + strings.Repeat(" counter x", 30), "longer than"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			_, err := compileRule(c.family, c.rule)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that names %s", err, c.want)
			}
		})
	}
}

func FuzzCompileRule(f *testing.F) {
	for _, s := range []string{
		"iifname weftx* oifname != br0 drop", "ether type arp iifname . arp saddr ether . arp saddr ip @src4 accept",
		"udp dport { 1, 2 } ip saddr . vni @members counter x accept", "ip saddr 10.0.0.0/8 skuid ct state established,related masquerade",
		"snat to 10.0.0.1", "icmp . @", "ip saddr .", "vni", "udp dport {",
	} {
		f.Add("inet", s)
		f.Add("bridge", s)
	}
	f.Fuzz(func(t *testing.T, family, text string) {
		r, err := compileRule(kstate.Family(family), text)
		if err != nil {
			return
		}
		for _, e := range r.exprs {
			if _, err := expr.Marshal(byte(nftables.TableFamilyINet), e); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
		if again, err := compileRule(kstate.Family(family), r.text); err != nil || !sameExprs(r.exprs, again.exprs) {
			t.Errorf("%q compiles to two things", text)
		}
	})
}

func TestSetElements(t *testing.T) {
	for _, c := range []struct{ typ, value string }{
		{"ipv4_addr . vni", "192.0.2.1 . 8388609"},
		{"vni", "16777215"},
		{"ipv4_addr", "192.0.2.1"},
		{"ipv4_net", "10.0.0.0/8"},
		{"ipv4_net", "0.0.0.0/0"},
		{"ipv4_net", "255.255.255.0/24"},
		{"ipv4_net", "10.0.0.1-10.0.0.7"},
		{"ifname . ether_addr . ipv4_addr", "e0123456789ab . 02:00:00:00:00:01 . 10.0.0.1"},
		{"ifname . ether_addr", "e0123456789ab . 02:00:00:00:00:01"},
	} {
		t.Run(c.value, func(t *testing.T) {
			typ, err := parseSetType(c.typ)
			if err != nil {
				t.Fatal(err)
			}
			elems, err := typ.elements(c.value)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{c.value}, typ.values(elems)); diff != "" {
				t.Errorf("there and back (-want +got):\n%s", diff)
			}
		})
	}
	for _, c := range []struct{ typ, value string }{
		{"ipv4_addr . vni", "192.0.2.1"}, {"ipv4_addr . vni", "192.0.2.1 . 16777216"}, {"ipv4_addr", "::1"},
		{"ipv4_net", "10.0.0.1/8"}, {"ipv4_net", "10.0.0.9-10.0.0.1"}, {"ifname . ether_addr", "e* . 02:00:00:00:00:01"},
	} {
		typ, _ := parseSetType(c.typ)
		if _, err := typ.elements(c.value); err == nil {
			t.Errorf("%s accepted %q", c.typ, c.value)
		}
	}
	if _, err := parseSetType("inet_service"); err == nil {
		t.Error("an unknown set type was accepted")
	}
}

func FuzzSetElements(f *testing.F) {
	f.Add(0, "192.0.2.1 . 8388609")
	f.Add(3, "10.0.0.0/8")
	f.Add(4, "e0 . 02:00:00:00:00:01 . 10.0.0.1")
	f.Fuzz(func(t *testing.T, n int, value string) {
		typ := setTypes[uint(n)%uint(len(setTypes))]
		elems, err := typ.elements(value)
		if err != nil {
			return
		}
		again, err := typ.elements(typ.values(elems)[0])
		if err != nil || !cmp.Equal(elems, again, cmp.AllowUnexported(nftables.SetElement{})) {
			t.Errorf("%q does not come back: %v", value, err)
		}
	})
}

func FuzzParseLink(f *testing.F) {
	f.Add(make([]byte, 16), []byte{8, 0, 3, 0, 'l', 'o', 0, 0})
	f.Fuzz(func(t *testing.T, head, attrs []byte) {
		_, _ = parseLink(append(head, attrs...))
		_, _ = comment(attrs)
	})
}
