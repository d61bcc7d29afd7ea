package overlay

import "net/netip"

// LocalEndpoint is the intent to keep one endpoint on this node: what attach wrote to disk and what the plan realises.
type LocalEndpoint struct {
	Endpoint
	NetworkID NetworkID `json:"networkId"`
	Network   string    `json:"network"`
	// IfName is the interface inside the endpoint's namespace.
	IfName string `json:"ifname"`
	// NetNS is the named namespace (under /run/netns) that holds a reference on the endpoint's namespace.
	NetNS string `json:"netns"`
	// SourcePath is the namespace path that attach was given, empty when weft made the namespace; SourceInode is what
	// it pointed to. When the path no longer leads there, the endpoint is gone.
	SourcePath  string `json:"sourcePath,omitempty"`
	SourceInode uint64 `json:"sourceInode,omitempty"`
	// PID and PIDStart (clock ticks since boot, field 22 of /proc/PID/stat) name the process whose end ends the
	// endpoint; zero when there is none.
	PID      int    `json:"pid,omitempty"`
	PIDStart uint64 `json:"pidStart,omitempty"`
	// BootID is the kernel's boot id at attach: an endpoint does not survive a reboot.
	BootID string `json:"bootId"`
	// HostRoute asks for a way from the host to the endpoint.
	HostRoute bool `json:"hostRoute,omitempty"`
	// Owner names the program that keeps the endpoint, empty for none; weft itself makes nothing of it.
	Owner string `json:"owner,omitempty"`
	// Leaving marks an endpoint that is being detached.
	Leaving bool `json:"leaving,omitempty"`
}

// Leg is this node's egress leg of one network: two addresses of a /31.
type Leg struct {
	Host    netip.Addr // on the host's end
	Network netip.Addr // on the end inside the network's namespace
}
