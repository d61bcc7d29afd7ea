// Package docs tests the documentation: every command that it prints is parsed or run, its tables name what exists, and
// the Consul policies of deploy/ are tried on a Consul that denies by default.
//
//	go test ./test/docs -update    writes docs/cli.md and the output of the commands that are run, anew
package docs
