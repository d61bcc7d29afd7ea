package reconcile

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/pkg/kstate"
	"weft/pkg/plan"
)

// run executes what leads from have to want with these faults, and returns the texts of what was skipped.
func run(t *testing.T, want *kstate.State, k *kernel, faults ...string) (skipped, failed []string, applied int) {
	t.Helper()
	have, err := k.Observe(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	k.faults = faults
	n, bad := Execute(t.Context(), want.Depends, plan.Diff(want, have), k.Apply)
	for _, f := range bad {
		line, _, _ := strings.Cut(f.Op.String(), "\n")
		if f.Skipped {
			skipped = append(skipped, line)
		} else {
			failed = append(failed, line)
		}
	}
	k.faults = nil
	return skipped, failed, n
}

// within reports whether all lines hold one of the texts.
func within(lines []string, texts ...string) bool {
	for _, l := range lines {
		if !slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(l, s) }) {
			return false
		}
	}
	return true
}

// TestExecuteMaking builds three networks with one fault: what is skipped must be exactly what depends on it.
func TestExecuteMaking(t *testing.T) {
	const aa, enc = "weft-n-aa", "weft-n-enc"
	for name, tc := range map[string]struct {
		fault string
		// skipped is how many operations must not be tried, all of them with one of the texts in.
		skipped int
		in      []string
	}{
		"no fault":             {"no such thing", 0, nil},
		"namespace":            {"netns weft-n-aa", 18, []string{aa, "weft-e-aa"}},
		"fence":                {"add weft-n-aa table bridge weft", 17, []string{aa, "weft-e-aa"}},
		"bridge":               {"add weft-n-aa link br0", 16, []string{aa, "weft-e-aa"}},
		"vxlan":                {"add weft-n-aa link vxlan0", 13, []string{aa, "weft-e-aa"}},
		"shared fence":         {"add (host) table inet", 0, nil}, // counted below: everything
		"wireguard device":     {"wgdevice", 0, nil},              // below
		"wireguard peer":       {"wgpeer", 0, nil},
		"veth":                 {"link eaa1", 5, []string{"eaa1", "weft-e-aa1"}},
		"port of an endpoint":  {"port eaa1", 1, []string{"up eaa1"}},
		"port of vxlan0":       {"add weft-n-aa port vxlan0", 1, []string{"up vxlan0"}},
		"endpoint's namespace": {"netns weft-e-aa1", 6, []string{"eaa1", "weft-e-aa1"}},
		"address":              {"addr 10.0.0.2/24", 0, nil},
		"up":                   {"add weft-n-aa up br0", 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			want, k := world("aa+", "bb", "enc"), newKernel()
			skipped, failed, applied := run(t, want, k, tc.fault)
			switch name {
			case "shared fence":
				if applied != 0 && !within(skipped, "") || len(skipped) != len(want.Entries)-1-applied {
					t.Errorf("applied %d, skipped %d of %d", applied, len(skipped), len(want.Entries))
				}
				if strings.Contains(k.take(), " link ") {
					t.Error("a link was made without the shared fence")
				}
			case "wireguard device":
				if !within(skipped, enc, "weft-e-enc", "weft-t") || len(skipped) == 0 {
					t.Errorf("skipped:\n%s", strings.Join(skipped, "\n"))
				}
				for _, made := range strings.Split(k.take(), "\n") {
					if strings.Contains(made, enc+" up") || strings.Contains(made, "weftwg0 up") {
						t.Errorf("made without WireGuard: %s", made)
					}
				}
			default:
				if len(skipped) != tc.skipped || !within(skipped, tc.in...) {
					t.Errorf("skipped %d, want %d within %q:\n%s", len(skipped), tc.skipped, tc.in, strings.Join(skipped, "\n"))
				}
			}
			if all := applied + len(skipped) + len(failed); all != len(want.Entries) {
				t.Errorf("%d of %d operations are accounted for", all, len(want.Entries))
			}
			// Once the fault is healed the next run finishes, and a third finds nothing to do.
			if skipped, failed, _ := run(t, want, k); skipped != nil || failed != nil {
				t.Errorf("healed, but skipped %q, failed %q", skipped, failed)
			}
			if _, _, applied := run(t, want, k); applied != 0 {
				t.Errorf("%d operations with nothing to do", applied)
			}
		})
	}
}

// Removals are tried whatever failed, but no fence is taken away from around a link that stays.
func TestExecuteRemoving(t *testing.T) {
	for name, tc := range map[string]struct {
		want    *kstate.State
		fault   string
		skipped []string
		failed  []string
	}{
		"nothing fails": {world("bb"), "no such thing", nil, nil},
		"a veth stays": {world("bb"), "remove weft-n-aa link eaa1",
			[]string{"remove (host) elem inet @vnis { 8388802 }"}, []string{"remove weft-n-aa link eaa1 veth mtu 1450 peer eth0@weft-e-aa1"}},
		"vxlan0 stays": {world("bb"), "remove weft-n-aa link vxlan0",
			[]string{"remove (host) elem inet @vnis { 8388802 }"},
			[]string{"remove weft-n-aa link vxlan0 vxlan mtu 1450 vni 8388802 local invalid IP port 0 underlay (host)"}},
		"making fails elsewhere": {world("bb", "cc"), "add weft-n-cc netns", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKernel()
			if _, failed, _ := run(t, world("aa", "bb"), k); failed != nil {
				t.Fatal(failed)
			}
			tc.want.Prune["aa"] = true
			skipped, failed, _ := run(t, tc.want, k, tc.fault)
			if name == "making fails elsewhere" {
				if k.there("weft-n-aa", "") || len(failed) == 0 {
					t.Errorf("aa was not removed: failed %q, skipped %q", failed, skipped)
				}
				return
			}
			if diff := cmp.Diff(tc.skipped, skipped); diff != "" {
				t.Errorf("skipped (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.failed, failed); diff != "" {
				t.Errorf("failed (-want +got):\n%s", diff)
			}
			if skipped, failed, _ := run(t, tc.want, k); skipped != nil || failed != nil {
				t.Errorf("healed, but skipped %q, failed %q", skipped, failed)
			}
		})
	}
}

// Leaving takes everything down; while one link stays, the shared fence does too.
func TestExecuteLeaving(t *testing.T) {
	k := newKernel()
	if _, failed, _ := run(t, world("aa", "enc"), k); failed != nil {
		t.Fatal(failed)
	}
	nothing := kstate.NewState()
	nothing.Prune[""] = true
	skipped, _, _ := run(t, nothing, k, "remove weft-n-aa link vxlan0")
	if !slices.Contains(skipped, "remove (host) table inet weft") {
		t.Errorf("the shared fence went before the link; skipped: %q", skipped)
	}
	if skipped, failed, _ := run(t, nothing, k); skipped != nil || failed != nil || len(k.items) != 0 {
		t.Errorf("skipped %q, failed %q, left %v", skipped, failed, k.items)
	}
}

func TestExecuteEndsWithContext(t *testing.T) {
	want, k := world("aa"), newKernel()
	have, _ := k.Observe(t.Context(), want)
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	applied, failed := Execute(ctx, nil, plan.Diff(want, have), func(context.Context, kstate.Op) error {
		if n++; n == 3 {
			cancel()
		}
		return nil
	})
	if n != 3 || applied != 3 || len(failed) != 1 || !failed[0].Skipped || !errors.Is(failed[0], context.Canceled) {
		t.Errorf("tried %d, applied %d, failed %v", n, applied, failed)
	}
}

func TestOpError(t *testing.T) {
	op := kstate.Op{Verb: kstate.Add, Item: kstate.NetNS{Name: "weft-t"}}
	bad := OpError{Op: op, Err: os.ErrPermission}
	if bad.Error() != "add weft-t netns weft-t: permission denied" || !errors.Is(bad, os.ErrPermission) {
		t.Errorf("error is %q", bad)
	}
	bad.Skipped = true
	if bad.Error() != "add weft-t netns weft-t: not tried: permission denied" {
		t.Errorf("error is %q", bad)
	}
	if Join(nil) != nil || !errors.Is(Join([]OpError{bad}), os.ErrPermission) {
		t.Error("joined wrongly")
	}
}
