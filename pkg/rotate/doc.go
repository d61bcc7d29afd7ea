// Package rotate decides each step of the change from one generation of WireGuard keys to the next.
//
// # One generation for the whole mesh
//
// A WireGuard device accepts what comes from a peer's VTEP address from one of the peer's keys only. So a pair cannot
// change one side's key without a moment in which packets under way are refused, unless both sides have a second device.
// That is why nodes change together: whoever is the first to begin a generation makes a device for it and publishes its
// key; whoever sees that does the same; and each pair moves from the older device to the newer on its own.
//
//	        begin                   all carried        all let go
//	{1} ───────────────> {1, 2} ──────────────> {1, 2}, leaving 1 ──────────> {2}
//	         │   device for 2, record {1, 2};     record {2}           device and keys of 1
//	         │   per peer: handshake proved,                           are removed
//	         │   then its route moves
//	         └──> back to {1}: nobody answers on the new port (abandoned, said loudly)
//
// A device goes when nobody needs it: a peer shows that it has moved all its routes by leaving the older generation out
// of its record. A peer whose agent stands still, but whose kernel goes on, holds both devices; meanwhile no third
// generation begins. A peer that is silent does not: after Patience it is no longer waited for. When it comes back it
// sees that the others are ahead, and goes where they are.
//
// Every step is a value that is kept on disk before it takes effect; what the kernel and the records show decides the
// next. So a crash at any point costs nothing but time.
package rotate
