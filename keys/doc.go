// Package keys holds weft's keys and the signed records they make: WireGuard keys, node identities, envelopes.
//
// Every kind of key is a type of its own. Secret ones print as "(redacted)" under every fmt verb, in slog and in
// JSON, have no text form that could be read back by accident, and cannot be compared with ==; [PrivateKey.Reveal]
// and its siblings are the one way to their bytes. docs/records.md gives the bytes of a signed record.
package keys
