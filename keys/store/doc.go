// Package store keeps a node's private keys on disk, in files that nobody else can read.
package store
