package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// resolvDir holds a started program's resolv.conf until it is mounted.
//
// A bind mount holds the file itself, not its name, so the name goes as soon as the program runs: nothing is left to
// clean up on detach, and it works for run and exec alike. It must be an ordinary file system that the child can mount
// from: a memfd belongs to no mount namespace and is refused.
const resolvDir = "/run/weft/resolv"

// resolvAge is when a file that is still there has no owner any more. Wall clock.
const resolvAge = 10 * time.Minute

// resolvMax is how many nameservers the resolvers read (MAXNS in resolv.h).
const resolvMax = 3

// writeResolvConf writes a file that sends queries to dns and returns its path, "" when dns is empty: then the
// program keeps the host's.
func writeResolvConf(dir, id string, dns []netip.Addr) (string, error) {
	if len(dns) == 0 {
		return "", nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make directory for resolv.conf: %w", err)
	}
	sweep(dir)
	// An id may be anything that the caller of attach liked.
	f, err := os.CreateTemp(dir, strings.NewReplacer("/", "_", "*", "_").Replace(id)+"-*")
	if err != nil {
		return "", fmt.Errorf("write resolv.conf: %w", err)
	}
	defer f.Close()
	_, err = f.WriteString(resolvConf(dns))
	if err == nil {
		err = f.Chmod(0o644) // the program may run as anybody
	}
	if err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("write resolv.conf: %w", err)
	}
	return f.Name(), nil
}

// resolvConf is a resolv.conf that sends queries to dns.
func resolvConf(dns []netip.Addr) string {
	var b strings.Builder
	for _, a := range dns[:min(len(dns), resolvMax)] {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	b.WriteString("options ndots:1 timeout:2\n")
	return b.String()
}

// sweep removes what weft runs that were killed at the wrong moment left: files are needed for milliseconds.
func sweep(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // then the write fails as well, and says why
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && time.Since(fi.ModTime()) > resolvAge {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// removeResolvConf takes the name away; again, or of none, is fine.
func removeResolvConf(path string) {
	if path != "" {
		os.Remove(path)
	}
}
