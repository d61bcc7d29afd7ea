package frame

import "golang.org/x/sys/cpu"

//go:noescape
func sumAVX2(p *byte, n int) uint64

var hasAVX2 = cpu.X86.HasAVX2

// sumWide adds the longest beginning of b that vector instructions take, and returns its length.
func sumWide(b []byte) (acc uint64, n int) {
	if !hasAVX2 || len(b) < 128 {
		return 0, 0
	}
	n = len(b) &^ 63
	return sumAVX2(&b[0], n), n
}
