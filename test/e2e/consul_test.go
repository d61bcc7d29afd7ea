package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"weft/pkg/api"
	"weft/pkg/lab"
)

// TestConsulWiped deletes everything weft has in Consul, then restores a snapshot from before the last changes: no
// packet is lost, nothing is handed out twice, and Consul ends up holding what the nodes know.
func TestConsulWiped(t *testing.T) {
	w := ownWorld(t, lab.Options{})
	w.weft("n1", "network", "create", "wiped", "--encrypted")
	w.known("wiped", w.Nodes()...)
	w.endpoint("n1", "wiped", "wipe-a")
	w.run("n1", "consul", "snapshot", "save", "/tmp/weft-e2e-old.snap")
	defer w.run("n1", "rm", "-f", "/tmp/weft-e2e-old.snap")
	b := w.endpoint("n2", "wiped", "wipe-b")
	w.weft("n2", "network", "create", "younger")
	w.known("younger", w.Nodes()...)
	keys := func() string {
		// Spare leases come and go by themselves.
		return w.run("n1", "sh", "-c", `consul kv get -keys -recurse weft/ | grep -v -e leases/ -e recall; consul kv get -recurse weft/leases/ | grep -B4 '"used"' | grep -o 'weft/leases/[^:]*'`)
	}
	time.Sleep(time.Second)
	before := keys()
	for _, c := range []struct {
		name string
		hurt []string
	}{
		{"wiped", []string{"consul", "kv", "delete", "-recurse", "weft/"}},
		{"restored from an old snapshot", []string{"consul", "snapshot", "restore", "/tmp/weft-e2e-old.snap"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{w.Lab, t}
			steady := w.startPing("n1", "wipe-a", b.Address.Addr().String(), 500, 10*time.Millisecond, 84)
			time.Sleep(500 * time.Millisecond)
			w.run("n1", c.hurt...)
			late := w.endpoint("n3", "wiped", "late-"+fmt.Sprint(len(c.name)))
			if late.Address == b.Address {
				t.Errorf("the address of wipe-b was given out again: %s", late.Address)
			}
			w.weft("n3", "detach", late.Name)
			var p pings
			steady.result(&p)
			if p.Received != p.Sent {
				t.Errorf("lost %d of %d pings: %v", p.Sent-p.Received, p.Sent, p.Lost)
			}
			w.eventually(20*time.Second, "Consul holds what it held", func() error {
				now := map[string]bool{}
				for line := range strings.Lines(keys()) {
					now[line] = true
				}
				for line := range strings.Lines(before) {
					if !now[line] {
						return fmt.Errorf("missing: %s", line)
					}
				}
				return nil
			})
			w.eventually(20*time.Second, "all nodes are well", func() error {
				for _, h := range w.Nodes() {
					s := w.status(h)
					if len(s.Problems) > 0 || !s.Consul.OK || len(s.Networks) != 2 {
						return fmt.Errorf("%s: %+v", h, s)
					}
				}
				return nil
			})
			var n api.Network
			w.weftJSON(&n, "n3", "network", "inspect", "wiped")
			if len(n.Endpoints) != 2 {
				t.Errorf("endpoints afterwards: %+v", n.Endpoints)
			}
		})
	}
}

// TestConsulVanishedRecord deletes one network's record behind weft's back: that is no deletion, and it comes back.
func TestConsulVanishedRecord(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("vanish", "--encrypted")
	w.endpoint("n1", n.Name, "van-a")
	b := w.endpoint("n2", n.Name, "van-b")
	before := w.run("n1", "consul", "kv", "get", "weft/networks/vanish")
	steady := w.startPing("n1", "van-a", b.Address.Addr().String(), 100, 10*time.Millisecond, 84)
	time.Sleep(200 * time.Millisecond)
	w.run("n1", "consul", "kv", "delete", "weft/networks/vanish")
	w.eventually(5*time.Second, "the record is back", func() error {
		now, err := w.try("n1", "consul", "kv", "get", "weft/networks/vanish")
		if err != nil {
			return err
		}
		if now != before {
			return errors.New(now)
		}
		return nil
	})
	var p pings
	steady.result(&p)
	if p.Received != p.Sent {
		t.Errorf("pings: %+v", p)
	}
	said := false
	for _, h := range w.Nodes() {
		path, err := w.LogPath(h, "agent")
		if err != nil {
			t.Fatal(err)
		}
		said = said || strings.Contains(w.run(h, "cat", path), "vanished from Consul")
	}
	if !said {
		t.Error("no agent tells of it in its log")
	}
}
