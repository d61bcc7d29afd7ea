package netns

import (
	"fmt"
	"os"
	"strings"
)

// unitOptions are the systemd settings that give a service a slave copy of the mounts; namespaces named in such a copy
// are seen by nobody else and die with the service.
const unitOptions = "PrivateMounts=, PrivateTmp=, ProtectSystem=, ProtectHome=, ProtectKernelTunables=, ReadOnlyPaths=, " +
	"InaccessiblePaths=, BindPaths=, RootDirectory= and MountFlags="

// CheckShared reports why namespaces that this process names would not outlive it: /run/netns must be in the mount
// namespace of PID 1, or be shared with it. nil means they do.
func CheckShared() error {
	// Not /proc/1/ns/mnt: reading that needs every capability that PID 1 has.
	here, err := mountAt("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	there, err := mountAt("/proc/1/mountinfo")
	if err != nil {
		return err
	}
	if here.sharedWith(there) {
		return nil
	}
	return fmt.Errorf("check %s: namespaces made here would die with this process, because its mounts do not reach "+
		"the host; remove %s from its systemd unit, or start it outside a private mount namespace", Dir, unitOptions)
}

func mountAt(path string) (mount, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return mount{}, fmt.Errorf("check %s: %w", Dir, err)
	}
	return parseMount(string(b), Dir), nil
}

// mount is what a mountinfo file says of one mount. Identifiers are unique on the machine, so that one that shows in two
// files is one mount, seen from the same mount namespace.
type mount struct{ id, point, group string }

func (m mount) sharedWith(o mount) bool {
	return m.id != "" && m.id == o.id || m.group != "" && m.group == o.group
}

// parseMount finds in the text of a mountinfo file (proc_pid_mountinfo(5)) the mount that holds dir; the zero value when
// there is none. Its group is the peer group, "" when it propagates to nobody.
func parseMount(mountinfo, dir string) mount {
	var best mount
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) < 7 || !holds(f[4], dir) || len(f[4]) < len(best.point) {
			continue
		}
		best = mount{id: f[0], point: f[4]}
		for _, opt := range f[6:] {
			if opt == "-" {
				break
			}
			if g, ok := strings.CutPrefix(opt, "shared:"); ok {
				best.group = g
			}
		}
	}
	return best
}

func holds(mount, dir string) bool {
	return mount == "/" || mount == dir || strings.HasPrefix(dir, mount+"/")
}
