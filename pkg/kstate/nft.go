package kstate

import (
	"strconv"
)

// Family is an nftables family.
type Family string

// The families weft uses.
const (
	Inet         Family = "inet"
	BridgeFamily Family = "bridge"
	IPv4Family   Family = "ip" // only for the marked rules in another program's chain
)

// Table is an nftables table named TableName.
type Table struct {
	NS     string
	Family Family
}

func (t Table) Key() Key       { return Key{t.NS, "a-table", string(t.Family)} }
func (t Table) Stage() Stage   { return StageFence }
func (t Table) On() string     { return "" }
func (t Table) String() string { return "table " + string(t.Family) + " " + TableName }

// NFSet is a set in a Table. Type is one of "ipv4_addr . vni", "vni", "ipv4_addr", "ipv4_net" (interval),
// "ifname . ether_addr . ipv4_addr", "ifname . ether_addr".
type NFSet struct {
	NS     string
	Family Family
	Name   string
	Type   string
}

func (s NFSet) Key() Key       { return Key{s.NS, "b-set", string(s.Family) + " " + s.Name} }
func (s NFSet) Stage() Stage   { return StageFence }
func (s NFSet) On() string     { return "" }
func (s NFSet) String() string { return "set " + string(s.Family) + " " + s.Name + " type " + s.Type }

// Elem is one element of an NFSet; Value is the nft text of it, fields joined by " . ", VNIs in decimal.
type Elem struct {
	NS     string
	Family Family
	Set    string
	Value  string
}

func (e Elem) Key() Key     { return Key{e.NS, "c-elem", string(e.Family) + " " + e.Set + " " + e.Value} }
func (e Elem) Stage() Stage { return StageFence }
func (e Elem) On() string   { return "" }
func (e Elem) String() string {
	return "elem " + string(e.Family) + " @" + e.Set + " { " + e.Value + " }"
}

// Chain is a base chain of a Table with its rules, one a line, in the small language that pkg/kernel compiles: the nft
// syntax of the matches weft needs, see Rules.
type Chain struct {
	NS       string
	Family   Family
	Name     string
	Type     string // "filter" or "nat"
	Hook     string // "prerouting", "input", "forward", "output", "postrouting"
	Priority int
	Policy   string // "accept" or "drop"
	// Rules is a newline-separated list. Words a rule may hold, in order of evaluation:
	//
	//	iifname NAME | iifname PREFIX*      iifname != NAME    (the same for oifname)
	//	ether type arp|ip|ip6
	//	ip saddr A | ip daddr A | ip saddr @SET | ip daddr @SET | ip daddr != A   (A: address or prefix)
	//	icmp        (IPv4 protocol 1)            icmpv6
	//	udp dport N | udp dport { N, M }
	//	vni @SET                                 VNI of a VXLAN packet (@th,96,24), after udp dport
	//	ip saddr . vni @SET                      outer source and VNI, after udp dport
	//	iifname . ether saddr @SET
	//	iifname . ether saddr . ip saddr @SET
	//	iifname . arp saddr ether . arp saddr ip @SET
	//	arp saddr ip A
	//	skuid                                    the packet has a socket owner
	//	ct state established,related
	//	counter NAME                             named counter, created with the chain
	//	accept | drop | masquerade | snat to A
	Rules string
}

func (c Chain) Key() Key     { return Key{c.NS, "d-chain", string(c.Family) + " " + c.Name} }
func (c Chain) Stage() Stage { return StageFence }
func (c Chain) On() string   { return "" }
func (c Chain) String() string {
	s := "chain " + string(c.Family) + " " + c.Name + " type " + c.Type + " hook " + c.Hook + " priority " +
		strconv.Itoa(c.Priority) + " policy " + c.Policy
	if c.Rules != "" {
		s += "\n" + c.Rules
	}
	return s
}

// ForeignRule is one rule of ours, commented Mark, at the head of another program's chain (Docker's DOCKER-USER, or a
// FORWARD with a drop policy), where an accept in our own table could not help.
type ForeignRule struct {
	NS    string
	Chain string // in table ip filter
	Rule  string
}

func (r ForeignRule) Key() Key       { return Key{r.NS, "e-foreign", r.Chain + " " + r.Rule} }
func (r ForeignRule) Stage() Stage   { return StageFence }
func (r ForeignRule) On() string     { return "" }
func (r ForeignRule) String() string { return "foreign ip filter " + r.Chain + " " + r.Rule }
