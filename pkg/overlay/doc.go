// Package overlay holds weft's nouns as values, with their validation: networks, nodes, endpoints, leases and the
// snapshot that the rest of weft decides from.
//
// It performs no I/O. All types are plain values; copies of slices and maps are the caller's business.
package overlay
