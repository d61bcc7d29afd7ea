package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// suite is a test binary and what of it runs in the guest.
type suite struct {
	name, pkg string
	run, full string // as go test -run: by default, and with -full
	env       []string
	needs     []string // binaries from bin/, put beside the test binary
}

// suites are what depends on the kernel's own WireGuard, and what meets other kernels' VXLAN, bridge and nftables. What
// does not depend on them is left to the host, which is many times faster.
var suites = []suite{
	{name: "wireguard", pkg: "./pkg/wireguard", run: "^(TestProbe|TestMesh|TestFirstContact|TestCrossing|TestRoaming|TestManyPeers)$/^kernel",
		full: "."},
	{name: "kernel", pkg: "./pkg/kernel", run: "TestRoundTrip|TestVXLANInWrongNamespace|TestDrift|TestRulesMean", full: "."},
	{name: "e2e", pkg: "./test/e2e", needs: []string{"weft", "consul"},
		run: "TestFullMTU|TestForgedPackets|TestFirstContact|TestAgentKilled|TestStolenIdentity|TestOverlappingNetworks|TestMixedMesh|" +
			"TestRepair/WireGuard|TestRepair/VTEP",
		full: ".",
		env:  []string{"WEFT_E2E_WEFT=/t/weft", "WEFT_E2E_CONSUL=/t/consul", "WEFT_E2E_BACKEND=kernel", "WEFT_E2E_SLOW=5"}},
}

// choose picks the suites, with what of them is to run.
func choose(o options) ([]suite, error) {
	var chosen []suite
	for _, s := range suites {
		if !o.suites.MatchString(s.name) {
			continue
		}
		if o.full {
			s.run = s.full
		}
		if o.run != "" {
			s.run = o.run
		}
		chosen = append(chosen, s)
	}
	if len(chosen) == 0 {
		return nil, errors.New("no suite has a name that matches")
	}
	return chosen, nil
}

// compile builds the test binaries of the chosen suites, and weft, into dir. All are static: the guest has no Go.
func compile(ctx context.Context, root, dir string, chosen []suite, o options) error {
	build := func(verb, out string, args ...string) error {
		args = append([]string{verb, "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, out)}, args...)
		if o.overlay != "" {
			args = slices.Insert(args, 1, "-overlay", o.overlay)
		}
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	weft := false
	for _, s := range chosen {
		if err := build("test", s.name+".test", "-c", s.pkg); err != nil {
			return err
		}
		weft = weft || len(s.needs) > 0
	}
	if weft {
		return build("build", "weft", "./cmd/weft")
	}
	return nil
}

// script is the guest's /init. Each test binary's exit code goes over the serial line, for the machine has no other way
// to hand it out: QEMU's debug exit wants port access, which these kernels do not give.
func script(chosen []suite) string {
	var b strings.Builder
	b.WriteString(`#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root GORACE=atexit_sleep_ms=0
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run; mount -t tmpfs tmp /tmp
mkdir -p /dev/net /dev/pts /run/netns; mount -t devpts pts /dev/pts
while read m; do insmod /mods/$m || echo "insmod $m failed"; done < /mods/list
ip link set lo up; hostname guest
echo "` + markUp + ` $(uname -r) $(cut -d' ' -f1 /proc/uptime)"
cd /t
`)
	for _, s := range chosen {
		fmt.Fprintf(&b, "echo \"%s %s\"\n%s ./%s.test -test.v -test.count=1 -test.run='%s'\necho \"%s %s $?\"\n", markSuite, s.name,
			strings.Join(s.env, " "), s.name, s.run, markEnd, s.name)
	}
	b.WriteString("ip netns list | sed 's/^/left behind: /'; ls /run/weft-lab 2>/dev/null | sed 's/^/left behind: lab /'\n" +
		"echo \"" + markDone + " $(cut -d' ' -f1 /proc/uptime)\"\npoweroff -f\n")
	return b.String()
}

// Lines by which the guest says how far it is.
const (
	markUp    = "WEFT-GUEST-UP"
	markSuite = "WEFT-GUEST-SUITE"
	markEnd   = "WEFT-GUEST-END"
	markDone  = "WEFT-GUEST-DONE"
)
