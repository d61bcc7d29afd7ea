//go:build !voidcheck

package ledger

// without reports whether a check is switched off: never. See void_on.go.
func without(string) bool { return false }
