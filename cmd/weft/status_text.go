package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"weft/pkg/api"
)

// statusRows is how many peers, and how many networks, fit the one screen; those in trouble come first.
const statusRows = 12

// paint colours a last cell of a row, where the escape's bytes do not disturb the alignment.
type paint func(color int, s string) string

const (
	red    = 31
	green  = 32
	yellow = 33
)

// painter colours for terminals only, and not when NO_COLOR is set (https://no-color.org).
func painter(w io.Writer) paint {
	f, ok := w.(*os.File)
	if ok && os.Getenv("NO_COLOR") == "" && isTerminal(f) {
		return func(color int, s string) string { return fmt.Sprintf("\x1b[%dm%s\x1b[0m", color, s) }
	}
	return func(_ int, s string) string { return s }
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// writeStatus is the text of status.
func writeStatus(w io.Writer, st api.Status, p paint) {
	fmt.Fprintf(w, "node\t%s in %s, weft %s, cluster %s\n", st.Node, st.Datacenter, st.Version, cmp.Or(st.Cluster, "not known yet"))
	fmt.Fprintf(w, "mesh\t%s WireGuard, vtep %s over %s\n", st.Backend, address(st.VTEP), address(st.Underlay))
	if st.Consul.OK {
		fmt.Fprintf(w, "consul\t%s %s\n", cmp.Or(st.Consul.Address, "-"), p(green, "ok"))
	} else {
		fmt.Fprintf(w, "consul\t%s %s\n", cmp.Or(st.Consul.Address, "-"), p(red, "does not answer: "+cmp.Or(st.Consul.Error, "no cause given")))
	}
	r := st.Reconcile
	fmt.Fprintf(w, "loop\t%d passes, %d changes applied, %d failed%s\n", r.Passes, r.Applied, r.Failed, lastChange(r.LastChange))
	if k := st.Keys; k.Changing {
		fmt.Fprintf(w, "keys\t%s\n", p(yellow, fmt.Sprintf("moving from generation %d to %d, %d of %d peers moved", k.From, k.Generation, carriedBy(k), len(st.Peers))))
	} else if k.Generation > 0 {
		fmt.Fprintf(w, "keys\tgeneration %d%s\n", k.Generation, since(k.Since))
	}
	if r.Frozen != "" {
		fmt.Fprintf(w, "frozen\t%s\n", p(yellow, "nothing is removed: "+r.Frozen))
	}
	writeDrops(w, st.Drops, p)
	writePeers(w, st.Peers, p)
	writeNetworks(w, st.Networks, p)
	if len(st.Problems) == 0 {
		if wrong(st) == 0 && !slices.ContainsFunc(st.Peers, func(x api.PeerStatus) bool { return !x.Up }) {
			fmt.Fprintf(w, "\n%s\n", p(green, "nothing is known to be wrong"))
		}
		return
	}
	fmt.Fprintf(w, "\n%s\n", p(red, fmt.Sprintf("PROBLEMS %d", len(st.Problems))))
	for _, pr := range st.Problems {
		fmt.Fprintf(w, "%s: %s\n", pr.Subject, pr.Message)
	}
}

// carriedBy counts the peers that the newer generation carries.
func carriedBy(k api.KeyStatus) (n int) {
	for _, g := range k.Carried {
		if g == k.Generation {
			n++
		}
	}
	return n
}

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return ", since " + age(max(0, time.Since(t).Seconds()))
}

func writeDrops(w io.Writer, drops map[string]uint64, p paint) {
	for _, name := range slices.Sorted(maps.Keys(drops)) {
		if n := drops[name]; n > 0 {
			fmt.Fprintf(w, "dropped\t%s\n", p(yellow, fmt.Sprintf("%d packets by %s", n, name)))
		}
	}
}

func writePeers(w io.Writer, peers []api.PeerStatus, p paint) {
	if len(peers) == 0 {
		fmt.Fprint(w, "\nno peers: this node is alone\n")
		return
	}
	up := 0
	for _, x := range peers {
		if x.Up {
			up++
		}
	}
	sorted := slices.SortedFunc(slices.Values(peers), func(a, b api.PeerStatus) int {
		return cmp.Or(cmp.Compare(rank(a.Up), rank(b.Up)), cmp.Compare(a.Node, b.Node))
	})
	fmt.Fprintf(w, "\nPEER\tVTEP\tENDPOINT\tHANDSHAKE\tRECEIVED\tSENT\t%d OF %d UP\n", up, len(peers))
	for _, x := range sorted[:min(len(sorted), statusRows)] {
		state := p(green, "up")
		if !x.Up {
			state = p(red, "down")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.Node, address(x.VTEP), cmp.Or(x.Endpoint, "-"),
			age(x.HandshakeAgeSeconds), size(x.RxBytes), size(x.TxBytes), state)
	}
	more(w, len(sorted))
}

func writeNetworks(w io.Writer, networks []api.NetworkStatus, p paint) {
	if len(networks) == 0 {
		fmt.Fprint(w, "\nno networks: make one with weft network create NAME\n")
		return
	}
	sorted := slices.SortedFunc(slices.Values(networks), func(a, b api.NetworkStatus) int {
		return cmp.Or(cmp.Compare(rank(a.State != "error"), rank(b.State != "error")), cmp.Compare(a.Name, b.Name))
	})
	fmt.Fprint(w, "\nNETWORK\tVNI\tKIND\tMTU\tHERE\tELSEWHERE\tSTATE\n")
	for _, n := range sorted[:min(len(sorted), statusRows)] {
		state := n.State
		switch n.State {
		case "up":
			state = p(green, state)
		case "error":
			state = p(red, "error: "+cmp.Or(n.Error, "no cause given"))
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%d\t%s\n", n.Name, n.VNI,
			networkKind(api.Network{Encrypted: n.Encrypted, Internal: n.Internal}), n.MTU, n.Local, n.Remote, state)
	}
	more(w, len(sorted))
}

func more(w io.Writer, n int) {
	if n > statusRows {
		fmt.Fprintf(w, "and %d more: weft status -o json\n", n-statusRows)
	}
}

func rank(good bool) int {
	if good {
		return 1
	}
	return 0
}

func lastChange(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return ", last change " + age(max(0, time.Since(t).Seconds()))
}

// age is for people: 12s ago, 4m ago, never for a negative one.
func age(seconds float64) string {
	switch s := int64(seconds); {
	case seconds < 0:
		return "never"
	case s < 120:
		return fmt.Sprintf("%ds ago", s)
	case s < 2*3600:
		return fmt.Sprintf("%dm ago", s/60)
	case s < 48*3600:
		return fmt.Sprintf("%dh ago", s/3600)
	default:
		return fmt.Sprintf("%dd ago", s/86400)
	}
}

// size is bytes for people, in powers of 1024.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		v /= 1024
		if v < 1024 {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}

func address(a interface {
	IsValid() bool
	String() string
}) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}
