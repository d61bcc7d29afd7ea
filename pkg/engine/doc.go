// Package engine is the body of `weft engine`: userspace WireGuard for one device, in a process of its own that outlives
// the agent.
package engine
