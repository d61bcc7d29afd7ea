// Command bench measures weft in a lab on this machine and prints one table, with the peers it was compared to.
//
//	go run ./test/bench [-only REGEX] [-rounds N] [-o json]
//
// It needs root, bin/weft and bin/consul (`make bench` builds them). Figures of one machine at one time are noisy, so
// what is compared is run in turns and given as medians and ratios; docs/performance.md says how to read them.
package main
