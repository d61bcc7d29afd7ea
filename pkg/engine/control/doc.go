// Package control is the engine's control protocol: what the agent tells a running engine about its networks, and what
// the engine answers.
//
// WireGuard's own configuration does not go this way: the engine speaks the standard UAPI for that.
package control
