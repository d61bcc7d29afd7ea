// Package apiclient talks to the agent of this host over its unix socket.
//
// It links little, since short-lived programs start with it; the cobra commands and weft-cni share it.
package apiclient
