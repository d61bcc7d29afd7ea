// Package cni is the logic of the weft-cni plugin: the Container Network Interface, versions 0.4.0 to 1.1.0, spoken as a
// client of the agent's socket.
//
// The plugin keeps nothing itself. An attachment is an endpoint whose id follows from container id and interface name,
// and whose owner is the network configuration's name: so DEL needs no namespace, and GC finds what is its own. Only a
// DEL that no agent answers is written to disk, see package queue.
package cni
