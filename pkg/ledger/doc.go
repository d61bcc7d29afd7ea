// Package ledger keeps the signed records that were verified and accepted, and decides about the next one.
//
// Consul delivers records; the ledger believes them. What it once accepted stays until a newer revision replaces it: a
// record that vanishes from Consul is no deletion (docs/records.md). It performs no I/O and reads no clock, so that each
// rule of trust can be tested as a value.
package ledger
