// Command kernel runs weft's tests under a kernel that has WireGuard: Debian's, in a QEMU guest without a network.
//
//	go run ./test/kernel [-kernel PACKAGE] [-suite REGEX] [-run REGEX | -full] [-limit 8m] [-v]
//	go run ./test/kernel -broken
//
// The guest holds the same test binaries as a run on the host, bin/weft and bin/consul; its processor is emulated, so
// it shows that things work, never how fast. What it needs is installed with apt-get where it is missing. Where QEMU or
// the kernel cannot be had, the run counts as skipped and says why; with CI=true it fails. -broken builds weft with faults that these tests are there to find, and fails when one is not found.
// docs/kernels.md tells more.
package main
