// Package dns answers the names of weft's networks from an immutable view in memory, and forwards all others.
//
// It is the only importer of miekg/dns. The query path never asks Consul: the agent feeds each new snapshot to a
// Builder and swaps the View it makes in whole. Queries that arrive on a network's listener see that network's names
// only; the host's listener sees those of all networks, below the domain.
//
// # The way of a query
//
//	recvmmsg -> parse by hand -> view: name -> packed records --> header + the asker's own question + records, shuffled
//	                               |                                                                 -> sendmmsg
//	                               +-- not ours --> cache: packed message, TTLs patched ------------------^
//	                                                  +-- miss --> goroutine: one flight per question -> upstreams
//
// Records are packed when the view is built, with a pointer to the question (offset 12) as their owner's name: so an
// answer is three copies, keeps the case the asker used (0x20), and needs no message library. miekg/dns cuts forwarded
// messages that do not fit, which is rare, and checks everything in the tests.
package dns
