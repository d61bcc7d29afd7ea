// Package ipam hands out the addresses of a network from leases in a shared store, without two nodes ever holding one.
//
// # How it works
//
// A lease is a key that is created once and never overwritten by another node; a Pool is this node's view of one
// network's leases. An attach takes a spare lease, which needs no round trip and works while the store is away; Run
// tells the store afterwards and fetches new spares. Without a spare, Allocate creates a lease: serially, after the
// newest one of the whole network or this node's last, whichever is later; who loses a race moves on.
//
//	free --create--> used --Release--> quarantine --60 s--> free
//	free --create--> spare --Allocate--> used
//	                 spare --GiveBack--> free
//
// What the pool knows of its own leases outlives a restart (Export, PoolConfig.Initial) and a wipe of the store (own
// leases are created again before anything new is). The package itself performs no I/O.
package ipam
