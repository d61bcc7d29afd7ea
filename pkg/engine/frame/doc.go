// Package frame cuts large Ethernet frames into segments and joins segments into large frames, and writes and reads the
// VXLAN headers around them.
//
// It performs no I/O and keeps no packet: everything happens in buffers of the caller.
package frame
