// Package plan decides what the kernel should hold, and which operations lead there, from values alone.
//
// Compute turns a snapshot of the cluster and this node's own part into the wanted kernel state; Diff turns wanted and
// observed state into ordered operations. Both are pure: no clock, no I/O, no log, no context, and the same input gives
// the same output. All functions are safe for concurrent use as long as nobody changes their arguments meanwhile.
package plan
