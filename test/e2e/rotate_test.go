package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/pkg/api"
	"weft/pkg/kstate"
	"weft/pkg/lab"
)

// twoDevices is the backend of the labs that change keys: the engine's own data path runs on one device.
const twoDevices = "engine-tun"

func (w *world) keyStatus(host string) (k api.KeyStatus) {
	w.t.Helper()
	w.weftJSON(&k, host, "key", "status")
	return k
}

// rotated waits until every node is done with its change, at one generation.
func (w *world) rotated(limit time.Duration, generation int) {
	w.t.Helper()
	for _, n := range w.Nodes() {
		w.eventually(limit, fmt.Sprintf("keys of %s at generation %d", n, generation), func() error {
			out, err := w.try(n, "weft", "key", "status", "-o", "json")
			if err != nil {
				return err
			}
			var k api.KeyStatus
			if err := json.Unmarshal([]byte(out), &k); err != nil || k.Changing || k.Generation != generation {
				return fmt.Errorf("%s, %v", out, err)
			}
			return nil
		})
	}
}

// devices are the WireGuard devices of a host with their peers' keys and endpoints.
func (w *world) devices(host string) string {
	w.t.Helper()
	return strings.TrimSpace(w.run(host, "sh", "-c", "ip netns exec weft-t ip -o link | grep -o 'weftwg[0-9]' | sort -u | tr '\\n' ' '"))
}

// pairOn makes an encrypted network with an endpoint on n1 and one on n2.
func (w *world) pairOn(name string) (to string) {
	w.t.Helper()
	n := w.network(name, "--encrypted")
	w.endpoint("n1", n.Name, name+"-a")
	b := w.endpoint("n2", n.Name, name+"-b")
	to = b.Address.Addr().String()
	w.ping("n1", name+"-a", to, 20, 20*time.Millisecond, 84)
	return to
}

// TestRotation changes the keys of every node, twice, so that both devices are the new one once, under 1,000 pings at
// 5 ms and a TCP stream. Nothing may be lost, and nothing of the old keys may stay.
func TestRotation(t *testing.T) {
	w := ownWorld(t, lab.Options{Backend: twoDevices})
	to := w.pairOn("rot")
	start := func() *traffic { return w.startTraffic("n1", "rot-a", "n2", "rot-b", to, 1000) }
	generation := 1
	for _, host := range []string{"n1", "n3"} {
		w.hitless(t, "rotation begun on "+host, 1000, start, func() {
			w.weft(host, "key", "rotate")
			generation++
			w.rotated(30*time.Second, generation)
		})
		for _, n := range w.Nodes() {
			if now, want := w.devices(n), kstate.WGName(generation); now != want {
				t.Errorf("after the rotation to generation %d %s has the devices %q, want %q", generation, n, now, want)
			}
			keys := w.run(n, "ls", w.Dir()+"/"+n+"/data/keys")
			want := fmt.Sprintf("identity.key kem-%d.key pairs-%d.key wg-%d.key", generation, generation, generation)
			if got := strings.Join(strings.Fields(keys), " "); got != want {
				t.Errorf("key files of %s: %s, want %s", n, got, want)
			}
		}
	}
	out := w.run("n1", "sh", "-c", "ip netns exec weft-t ip route")
	if strings.Count(out, "weftwg") != 2 {
		t.Errorf("routes after the rotations:\n%s", out)
	}
}

// buildVoid makes a weft binary whose checks and crashes tests can steer (build tag voidcheck).
func buildVoid(t *testing.T) string {
	t.Helper()
	needRoot(t)
	out := filepath.Join(filepath.Dir(weftBinary), "weft-void")
	if _, err := os.Stat(out); err == nil {
		return out
	}
	cmd := exec.Command("go", "build", "-tags", "voidcheck", "-o", out, "./cmd/weft")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, text)
	}
	return out
}

// TestRotationCrash ends the agent of n1 at each step of a rotation, as SIGKILL does, and starts it again: the rotation
// goes on, and nothing is lost.
func TestRotationCrash(t *testing.T) {
	void := buildVoid(t)
	for _, step := range []string{"keys", "state", "saved", "device", "removed"} {
		t.Run(step, func(t *testing.T) {
			w := ownWorld(t, lab.Options{Backend: twoDevices, Nodes: 2, Weft: void})
			to := w.pairOn("crash")
			start := func() *traffic { return w.startTraffic("n1", "crash-a", "n2", "crash-b", to, 1600) }
			generation := 1
			w.hitless(t, "crash at step "+step, 1600, start, func() {
				at := filepath.Join(w.Dir(), "n1", "data", "crash")
				if err := os.WriteFile(at, []byte(step), 0o600); err != nil {
					t.Fatal(err)
				}
				_, _ = w.try("n1", "weft", "key", "rotate", "--wait", "3s") // ends with the agent
				w.eventually(10*time.Second, "crash", func() error {
					if _, err := os.Stat(at); err == nil {
						return errors.New("not crashed")
					}
					return nil
				})
				w.eventually(10*time.Second, "n1 started again", func() error { return w.StartAgent(context.Background(), "n1") })
				if step == "keys" || step == "state" { // nothing of the change was kept
					w.eventually(10*time.Second, "n1 joined", func() error { _, err := w.try("n1", "weft", "key", "rotate"); return err })
				}
				generation++
				w.rotated(30*time.Second, generation)
			})
			if now, want := w.devices("n1"), kstate.WGName(generation); now != want {
				t.Errorf("devices of n1: %q, want %q", now, want)
			}
		})
	}
}

// TestRotationOffline stops the agent of n3, whose kernel goes on, during a rotation: nobody may drop what carries its
// traffic. When the agent is back it moves as well.
func TestRotationOffline(t *testing.T) {
	w := ownWorld(t, lab.Options{Backend: twoDevices})
	n := w.network("off", "--encrypted")
	w.endpoint("n1", n.Name, "off-a")
	b := w.endpoint("n3", n.Name, "off-b")
	to := b.Address.Addr().String()
	w.ping("n1", "off-a", to, 20, 20*time.Millisecond, 84)
	start := func() *traffic { return w.startTraffic("n1", "off-a", "n3", "off-b", to, 2400) }
	generation := 1
	w.hitless(t, "agent of n3 away during a rotation", 2400, start, func() {
		if err := w.StopAgent(context.Background(), "n3", unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		w.weft("n1", "key", "rotate", "--wait", "0s")
		time.Sleep(3 * time.Second)
		if k := w.keyStatus("n1"); !k.Changing || k.Carried["n2"] != k.Generation || k.Carried["n3"] == k.Generation {
			t.Errorf("while n3's agent is away: %+v", k)
		}
		w.startAgent("n3")
		generation++
		w.rotated(30*time.Second, generation)
	})
	if p := w.ping("n1", "off-a", to, 20, 10*time.Millisecond, 84); p.Received != 20 {
		t.Errorf("afterwards: %+v", p)
	}
}

// TestRotationMany rotates often: nothing may be left over.
func TestRotationMany(t *testing.T) {
	w := ownWorld(t, lab.Options{Backend: twoDevices, Nodes: 2})
	const times = 12
	for i := range times {
		w.weft([]string{"n1", "n2"}[i%2], "key", "rotate")
		w.rotated(30*time.Second, i+2)
	}
	for _, n := range w.Nodes() {
		if got, want := w.devices(n), kstate.WGName(times+1); got != want {
			t.Errorf("devices of %s: %q, want %q", n, got, want)
		}
		if files := strings.Fields(w.run(n, "ls", w.Dir()+"/"+n+"/data/keys")); len(files) != 4 {
			t.Errorf("key files of %s: %v", n, files)
		}
		// An engine ends once it has seen that its device is gone.
		w.eventually(5*time.Second, "one engine on "+n, func() error {
			out := w.run(n, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
			if engines := strings.Count(out, "engine --device"); engines > 1 {
				return fmt.Errorf("%d engines", engines)
			}
			return nil
		})
	}
}

// TestRotationPortClosed closes the second port of n1: its change is abandoned and the old keys stay, while the others wait
// for it on both; once the port is open they finish together.
func TestRotationPortClosed(t *testing.T) {
	w := ownWorld(t, lab.Options{Backend: twoDevices})
	to := w.pairOn("shut")
	w.run("n1", "nft", `table inet shut { chain in { type filter hook input priority -200; udp dport 51821 drop; }; chain out { type filter hook output priority -200; udp dport 51821 drop; }; }`)
	start := func() *traffic { return w.startTraffic("n1", "shut-a", "n2", "shut-b", to, 14500) }
	w.hitless(t, "rotation with a closed port", 14500, start, func() {
		w.weft("n1", "key", "rotate", "--wait", "0s")
		w.eventually(75*time.Second, "n1 has abandoned", func() error {
			if k := w.keyStatus("n1"); k.Changing || k.Generation%2 != 1 || !strings.Contains(k.Problem, "wireguard.ports") {
				return fmt.Errorf("%+v", k)
			}
			return nil
		})
		w.eventually(10*time.Second, "n1 says so", func() error { return named(w.status("n1"), "abandoned") })
		w.eventually(10*time.Second, "n2 says for whom it waits", func() error { return named(w.status("n2"), "waits for n1") })
		if now := w.devices("n2"); now != "weftwg0 weftwg1" {
			t.Errorf("n2 has %q while it waits", now)
		}
	})
	w.run("n1", "nft", "delete", "table", "inet", "shut")
	w.weft("n1", "key", "rotate")
	w.rotated(30*time.Second, w.keyStatus("n1").Generation)
}

// TestPresharedChange changes the cluster secret, and with it every preshared key, and goes on until WireGuard has made new
// session keys (REKEY_AFTER_TIME, 120 s) with them.
func TestPresharedChange(t *testing.T) {
	needRoot(t)
	secret := filepath.Join(t.TempDir(), "secret")
	put := func(s string) {
		if err := os.WriteFile(secret, []byte(strings.Repeat(s, 48)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("a")
	w := ownWorld(t, lab.Options{Backend: twoDevices, Nodes: 2, ConfigExtra: "trust:\n  secret_file: " + secret + "\n"})
	to := w.pairOn("psk")
	psk := func() string {
		return w.run("n1", "sh", "-c", `ip netns exec weft-t wg show all preshared-keys | cut -f3 | sha256sum`)
	}
	before, handshake := psk(), ""
	count := 2000 // 10 s
	long := os.Getenv("WEFT_E2E_LONG") != ""
	if long {
		count = 27000 // 135 s: a session's key is made anew after 120 s
	}
	next := "a"
	start := func() *traffic { return w.startTraffic("n1", "psk-a", "n2", "psk-b", to, count) }
	w.hitless(t, "change of the cluster secret", count, start, func() {
		next += "b"
		put(next)
		w.weft("n1", "key", "rotate")
		if now := psk(); now == before || len(now) < 60 {
			t.Error("the preshared key did not change")
		}
		handshake = w.run("n1", "sh", "-c", "ip netns exec weft-t wg show all latest-handshakes")
	})
	if now := w.run("n1", "sh", "-c", "ip netns exec weft-t wg show all latest-handshakes"); long && now == handshake {
		t.Errorf("no rekey happened: %s", now)
	}
}
