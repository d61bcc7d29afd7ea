// Package dns answers the names of weft's networks from an immutable view in memory, and forwards all others.
//
// It is the only importer of miekg/dns. The query path never asks Consul: the agent builds a View of each new snapshot
// and swaps it in whole. Queries that arrive on a network's listener see that network's names only.
package dns
