// Command fuzz runs every fuzz target of the module for a while, one after the other.
//
//	go run ./test/fuzz [-time 30s] [-run REGEXP] [PACKAGE...]
//
// It exits with 1 when a target finds something. The finding lies then in the package's testdata/fuzz, and `go test` runs
// it from there on: commit it with the fix.
package main
