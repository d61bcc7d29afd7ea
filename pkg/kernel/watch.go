package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// nftablesGroup is NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h).
const nftablesGroup = 7

// nfgenmsgLen is the size of struct nfgenmsg (linux/netfilter/nfnetlink.h).
const nfgenmsgLen = 4

// settle is how long changes may go on before they are told, monotonic: a ruleset is loaded in many messages.
const settle = 20 * time.Millisecond

// WatchFirewall calls changed after each change of the host's nftables that another program made, at most every 20 ms,
// until ctx ends; then it returns nil. It does not wait for other methods.
func (k *Kernel) WatchFirewall(ctx context.Context, changed func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	f := os.NewFile(uintptr(fd), "nftables events")
	defer f.Close()
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("watch nftables: bind: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, nftablesGroup); err != nil {
		return fmt.Errorf("watch nftables: join group: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) }) // a socket takes deadlines
	defer stop()
	own, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	b := make([]byte, 1<<16)
	for {
		n, err := f.Read(b)
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // overrun: something changed, that is enough
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch nftables: %w", err)
		}
		if err == nil && !byOthers(b[:n], strings.TrimSpace(string(own))) {
			continue
		}
		t := time.NewTimer(settle)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		changed()
	}
}

// byOthers reports whether a datagram of nftables events ends a transaction of a program that is not named own. Each
// transaction ends with a message that says who made it (NFT_MSG_NEWGEN, NFTA_GEN_PROC_NAME; nf_tables_fill_gen_info).
func byOthers(b []byte, own string) bool {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return true // not understood: look
	}
	for _, m := range messages {
		const newGen = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN
		if m.Header.Type != newGen || len(m.Data) < nfgenmsgLen {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m.Data[nfgenmsgLen:])
		if err != nil {
			return true
		}
		for _, a := range attrs {
			const procName = 3 // NFTA_GEN_PROC_NAME, linux/netfilter/nf_tables.h
			if a.Attr.Type&^unix.NLA_F_NESTED == procName && string(bytes.TrimRight(a.Value, "\x00")) != own {
				return true
			}
		}
	}
	return false
}
