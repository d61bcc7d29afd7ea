// Package api defines the local API between the agent and its clients: versioned JSON over HTTP on a unix socket.
package api
