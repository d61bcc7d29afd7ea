// Package netnstest runs a test binary in network and mount namespaces of its own, so that tests which make namespaces
// and links never touch the machine they run on.
package netnstest
