// Package kstate describes kernel state as values: the items weft manages, the operation that changes one, and their
// golden-text form.
//
// It performs no I/O. Every Item is a comparable struct, so "is it as wanted" is Same(want, have). Namespaces are
// written by name: "" is the host's, anything else is a named namespace under /run/netns.
package kstate
