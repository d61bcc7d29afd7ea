// Package ipamtest holds a lease store in memory for tests, with the conformance test that every ipam.Store passes.
package ipamtest
