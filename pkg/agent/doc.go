// Package agent composes the node daemon: it joins Consul, keys, the reconcile loop, leases, names and the local API.
package agent
