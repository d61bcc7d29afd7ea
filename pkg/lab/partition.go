package lab

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The switch cuts hosts off from each other with a set of port pairs:
//
//	table bridge lab {
//	    set cut { type ifname . ifname }
//	    chain forward { type filter hook forward priority 0; iifname . oifname @cut counter drop }
//	}
const (
	cutTable = "lab"
	cutSet   = "cut"
)

const ifNameSize = 16 // IFNAMSIZ, linux/if.h

// Partition stops all frames between two hosts, both ways. Doing it again changes nothing.
func (l *Lab) Partition(a, b string) error {
	if err := l.cut(a, b, true); err != nil {
		return fmt.Errorf("partition %s and %s: %w", a, b, err)
	}
	return nil
}

// Heal lets frames pass again between two hosts. Hosts that are not partitioned stay as they are.
func (l *Lab) Heal(a, b string) error {
	if err := l.cut(a, b, false); err != nil {
		return fmt.Errorf("heal %s and %s: %w", a, b, err)
	}
	return nil
}

func (l *Lab) cut(a, b string, drop bool) error {
	for _, name := range []string{a, b} {
		if h, err := l.live(name); err != nil {
			return err
		} else if !h.Address.IsValid() {
			return fmt.Errorf("host %s has no link: %w", name, fs.ErrInvalid)
		}
	}
	sw, err := l.live(Switch)
	if err != nil {
		return err
	}
	ns, err := sw.netNS()
	if err != nil {
		return err
	}
	defer ns.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	set, err := ensureCutSet(conn)
	if err != nil {
		return err
	}
	// One pair at a time: one that is there already, or is not, does not hold up the other.
	for _, pair := range [][2]string{{a, b}, {b, a}} {
		element := []nftables.SetElement{{Key: pairKey(pair[0], pair[1])}}
		if drop {
			err = conn.SetAddElements(set, element)
		} else {
			err = conn.SetDeleteElements(set, element)
		}
		if err == nil {
			err = conn.Flush()
		}
		if !drop && errors.Is(err, unix.ENOENT) || drop && errors.Is(err, unix.EEXIST) {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("change set of cut pairs: %w", err)
		}
	}
	return nil
}

// ensureCutSet makes the table on first use and returns its set.
func ensureCutSet(conn *nftables.Conn) (*nftables.Set, error) {
	table := &nftables.Table{Name: cutTable, Family: nftables.TableFamilyBridge}
	key, err := nftables.ConcatSetType(nftables.TypeIFName, nftables.TypeIFName)
	if err != nil {
		return nil, fmt.Errorf("make set of cut pairs: %w", err)
	}
	set := &nftables.Set{Table: table, Name: cutSet, KeyType: key, Concatenation: true}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyBridge)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == cutTable {
			return set, nil
		}
	}
	conn.AddTable(table)
	if err := conn.AddSet(set, nil); err != nil {
		return nil, fmt.Errorf("make set of cut pairs: %w", err)
	}
	chain := conn.AddChain(&nftables.Chain{Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: unix.NFT_REG_2}, // the 16 bytes behind
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: cutSet},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("make table of the switch: %w", err)
	}
	return set, nil
}

func pairKey(in, out string) []byte {
	key := make([]byte, 2*ifNameSize)
	copy(key, binaryutil.PutString(in))
	copy(key[ifNameSize:], binaryutil.PutString(out))
	return key
}
