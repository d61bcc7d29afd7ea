package wireguard

import (
	"fmt"
	"os"
	"testing"

	"weft/pkg/kstate"
	"weft/pkg/netns/netnstest"
)

// The test binary plays three more parts: the engine that a Backend starts, an agent on a simulated host, and a stream
// of pings there.
func TestMain(m *testing.M) {
	parts := map[string]func() error{"engine": engineMain, "host": hostMain, "agent": agentMain, "ping": pingMain}
	if len(os.Args) > 1 && parts[os.Args[1]] != nil {
		if err := parts[os.Args[1]](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	netnstest.Main(m)
}

func peerItem(k [32]byte, keepalive int) kstate.WGPeer {
	return kstate.WGPeer{NS: kstate.Transit, Device: "weftwg0", PublicKey: k, Keepalive: keepalive}
}
