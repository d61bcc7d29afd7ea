package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// fault is a change to weft's source that tests must find. The text is to be in the file exactly once, or the fault is out
// of date.
type fault struct {
	name, file, from, to string
	suite, run           string // where it must show
}

var faults = []fault{
	{name: "a peer gets another node's allowed address", file: "pkg/plan/transit.go",
		from: "AllowedIPs: single(p.VTEP).String()", to: "AllowedIPs: single(p.VTEP.Next()).String()",
		suite: "e2e", run: "TestFullMTUPingEncrypted"},
	{name: "VXLAN is made in the network's namespace, not in its underlay's", file: "pkg/kernel/apply_links.go",
		from: "from, err := k.spaces.get(it.Underlay)", to: "from, err := k.spaces.get(it.NS)",
		suite: "e2e", run: "TestFullMTUPingEncrypted"},
	{name: "the WireGuard device is made in the transit namespace, and with it its UDP socket", file: "pkg/wireguard/kernel.go",
		from: "err := addWireGuard(kstate.Transit, name, mtu)", to: "err := netns.Do(kstate.Transit, func() error { return addWireGuard(kstate.Transit, name, mtu) })",
		suite: "wireguard", run: "TestMesh/kernel"},
	{name: "a learnt endpoint is overwritten by the record's", file: "pkg/wireguard/peer.go",
		from: "if !fresh && old.endpoint != want.Endpoint {", to: "if old.endpoint != want.Endpoint {",
		suite: "wireguard", run: "TestRoaming/kernel"},
}

// runBroken runs a guest for each fault and reports those that no test found.
func runBroken(ctx context.Context, root string, k kernelFiles, o options) error {
	dir, err := os.MkdirTemp("", "weft-broken-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var errs []error
	for _, f := range faults {
		fmt.Printf("kernel: broken: %s (%s)\n", f.name, f.file)
		o.overlay, err = f.overlay(root, dir)
		if err != nil {
			return err
		}
		o.run, o.suites = f.run, regexp.MustCompile("^"+f.suite+"$")
		err := runGuest(ctx, root, k, o)
		var failed *failure
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			errs = append(errs, fmt.Errorf("not found by %s %s: %s", f.suite, f.run, f.name))
		case !errors.As(err, &failed) || failed.tests == 0:
			errs = append(errs, fmt.Errorf("%s: no test failed, but the run: %w", f.name, err))
		default:
			fmt.Printf("kernel: broken, and found: %s\n", f.name)
		}
	}
	return errors.Join(errs...)
}

// overlay writes the changed file, and the JSON that tells go to build it in the place of the original.
func (f fault) overlay(root, dir string) (string, error) {
	original := filepath.Join(root, f.file)
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), f.from); n != 1 {
		return "", fmt.Errorf("fault %q is out of date: its text is in %s %d times", f.name, f.file, n)
	}
	changed := filepath.Join(dir, "changed.go")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(text), f.from, f.to, 1)), 0o644); err != nil {
		return "", err
	}
	data, err := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, data, 0o644)
}
