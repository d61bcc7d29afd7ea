package wireguard

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"weft/keys"
	"weft/pkg/kstate"
)

// refusing is a control to which nothing may be written.
type refusing struct {
	control
	written *[]patch
}

func (r refusing) set(p patch) error { *r.written = append(*r.written, p); return nil }

// TestManyPeers programs 500 peers with two allowed prefixes each, one by one, as the loop does: requests of more than 32
// peers are several messages of wgctrl's, of which a reader could see the half. What is there is then not written again.
func TestManyPeers(t *testing.T) {
	for _, backend := range backends(t) {
		t.Run(backend, func(t *testing.T) { testManyPeers(t, backend) })
	}
}

func testManyPeers(t *testing.T, backend string) {
	const count = 500
	transit(t)
	b := Kernel()
	if backend == EngineName {
		b, _ = testEngine(t)
	}
	mustCreate(t, b)
	t.Cleanup(func() {
		if err := b.Delete(context.Background(), "weftwg0"); err != nil {
			t.Error(err)
		}
	})
	c, err := NewClient()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	own := mustPrivate(t)
	if err := c.SetDevice(kstate.WGDevice{NS: kstate.Transit, Name: "weftwg0", PublicKey: own.Public(), Port: 51820}, own); err != nil {
		t.Fatal(err)
	}
	want := map[keys.PublicKey]kstate.WGPeer{}
	for i := range count {
		host := fmt.Sprintf("%d.%d", i/250, i%250+1)
		p := kstate.WGPeer{NS: kstate.Transit, Device: "weftwg0", PublicKey: mustPrivate(t).Public(), Keepalive: 25,
			Endpoint: netip.MustParseAddrPort("198.18." + host + ":51820"), AllowedIPs: "100.64." + host + "/32,100.65." + host + "/32"}
		want[p.PublicKey] = p
	}
	ctl, have, err := c.open("weftwg0")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, p := range want { // what SetPeer does after it has read the device, which is the slow part
		if err := c.setPeer(ctl, have, p, nil); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d peers set within %v", count, time.Since(began).Round(time.Millisecond))
	check := func() {
		t.Helper()
		_, got, _, err := c.Observe(time.Now())
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d peers observed, want %d: %v", len(got), len(want), err)
		}
		for _, p := range got {
			if p != want[p.PublicKey] {
				t.Errorf("observed\n%v, want\n%v", p, want[p.PublicKey])
			}
		}
	}
	check()

	if ctl, have, err = c.open("weftwg0"); err != nil {
		t.Fatal(err)
	}
	var written []patch
	for _, p := range want {
		if err := c.setPeer(refusing{ctl, &written}, have, p, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(written) != 0 {
		t.Errorf("an unchanged pass writes %d requests, the first %+v", len(written), written[0])
	}

	var one kstate.WGPeer
	for _, one = range want {
		break
	}
	one.AllowedIPs = "100.66.0.1/32,100.66.0.2/32"
	want[one.PublicKey] = one
	if err := c.SetPeer(one, nil); err != nil {
		t.Fatal(err)
	}
	check()
	if err := c.RemovePeer("weftwg0", one.PublicKey); err != nil {
		t.Fatal(err)
	}
	delete(want, one.PublicKey)
	check()
}
