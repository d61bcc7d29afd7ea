package agent

import (
	"errors"
	"os"
	"strconv"
	"strings"
)

// neighbourLimits are what Swarm sets too (moby, libnetwork ostweaks_linux.go). The kernel counts neighbours of all
// namespaces against one limit, 1,024 by default: a host with some hundred endpoints reaches it, and then packets to new
// neighbours are dropped. The sysctls exist in the initial network namespace only.
var neighbourLimits = map[string]int{
	"gc_thresh1": 8192,
	"gc_thresh2": 49152,
	"gc_thresh3": 65536,
}

// raiseLimits raises the kernel's neighbour limits where they are lower; it never lowers them.
func (a *Agent) raiseLimits() {
	for _, family := range []string{"ipv4", "ipv6"} {
		for name, want := range neighbourLimits {
			path := "/proc/sys/net/" + family + "/neigh/default/" + name
			data, err := os.ReadFile(path)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			have, perr := strconv.Atoi(strings.TrimSpace(string(data)))
			if err == nil && perr == nil && have < want {
				if err = os.WriteFile(path, []byte(strconv.Itoa(want)), 0o644); err == nil {
					a.log.Info("kernel limit of the host raised", "sysctl", path, "from", have, "to", want)
				}
			}
			if err := errors.Join(err, perr); err != nil {
				a.log.Warn("kernel limit of neighbours not raised", "sysctl", path, "err", err)
			}
		}
	}
}
