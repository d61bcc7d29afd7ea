package control

import (
	"net/netip"

	"weft/pkg/overlay"
)

// Version is that of the protocol. An engine answers a request of another version with CodeVersion and its own number.
const Version = 1

// SocketPath is where the engine of a WireGuard device listens. Only root may connect, which the engine checks by the
// peer's credentials.
func SocketPath(device string) string { return "/run/weft/engine-" + device + ".sock" }

// Op is what a Request asks for.
type Op string

// The operations. All but OpWatch take one request and give one answer on a connection.
const (
	OpState     Op = "state"      // Networks, and Traffic
	OpAddTAP    Op = "add-tap"    // make TAP, or keep it if it is there as it should be
	OpRemoveTAP Op = "remove-tap" // by NetNS and Name; absence is success
	OpSetFDB    Op = "set-fdb"    // MAC of TAP is behind VTEP
	OpRemoveFDB Op = "remove-fdb" // absence is success
	OpWatch     Op = "watch"      // answers at once, and keeps the connection open as long as the engine lives
	OpProfile   Op = "profile"    // Profile, taken over Seconds
)

// Request is one line of JSON.
type Request struct {
	Version int      `json:"version"`
	Op      Op       `json:"op"`
	TAP     *TAP     `json:"tap,omitempty"`
	Entries []Entry  `json:"entries,omitempty"` // for OpSetFDB and OpRemoveFDB, of TAP's NetNS and Name
	Profile *Profile `json:"profile,omitempty"`
}

// Profile asks for a profile of package runtime/pprof: "cpu" for Seconds (1 to 60), or any other by name, at once.
type Profile struct {
	Name    string `json:"name"`
	Seconds int    `json:"seconds,omitempty"`
}

// TAP is one encrypted network's device.
type TAP struct {
	NetNS string      `json:"netns"`
	Name  string      `json:"name"`
	VNI   overlay.VNI `json:"vni,omitempty"`
	Local netip.Addr  `json:"local,omitzero"` // this node's VTEP
	Port  uint16      `json:"port,omitempty"` // UDP port of VXLAN
	MTU   int         `json:"mtu,omitempty"`  // bytes, when it is made; the link's own from then on
}

// Entry says which VTEP a MAC is behind. Frames to it go there, and frames from it are accepted from nowhere else.
type Entry struct {
	MAC  overlay.MAC `json:"mac"`
	VTEP netip.Addr  `json:"vtep,omitzero"`
}

// Code classifies an error for the client.
type Code string

// The codes.
const (
	CodeVersion  Code = "version"
	CodeInvalid  Code = "invalid"
	CodeExist    Code = "exist"     // os.ErrExist
	CodeNotExist Code = "not-exist" // os.ErrNotExist
	CodeFailed   Code = "failed"
)

// Response is one line of JSON.
type Response struct {
	Version  int       `json:"version"`
	Code     Code      `json:"code,omitempty"` // "" is success
	Error    string    `json:"error,omitempty"`
	Networks []Network `json:"networks,omitempty"`
	Traffic  *Traffic  `json:"traffic,omitempty"`
	Profile  []byte    `json:"profile,omitempty"`
}

// Network is what the engine has of one network.
type Network struct {
	TAP
	Index int     `json:"index"` // the link's, in the namespace
	Inode uint64  `json:"inode"` // the namespace's: its name may mean another one by now
	FDB   []Entry `json:"fdb"`
	Peers []Peer  `json:"peers"` // by VTEP
	// Drops counts by reason what belongs to no peer.
	Drops map[string]uint64 `json:"drops,omitempty"`
}

// Peer is the traffic between a network here and one VTEP. Frames are what the kernel sees, packets what WireGuard
// carries: their ratio is what cutting and joining saves.
type Peer struct {
	VTEP      netip.Addr        `json:"vtep"`
	RxPackets uint64            `json:"rx_packets"`
	RxBytes   uint64            `json:"rx_bytes"` // of inner frames
	RxFrames  uint64            `json:"rx_frames"`
	TxPackets uint64            `json:"tx_packets"`
	TxBytes   uint64            `json:"tx_bytes"`
	TxFrames  uint64            `json:"tx_frames"`
	Drops     map[string]uint64 `json:"drops,omitempty"` // by reason
}

// Traffic is what belongs to no network.
type Traffic struct {
	Drops map[string]uint64 `json:"drops,omitempty"`
	// Stuck names what has made no progress for a while although it has work; "" is all well.
	Stuck string `json:"stuck,omitempty"`
}
