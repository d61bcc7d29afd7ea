// Command weft is the agent that builds overlay networks on this host and the client that commands it.
package main
