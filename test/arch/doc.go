// Package arch holds the rules about weft's source tree that a test can check; each stands with its reason.
package arch
