package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Lab is a running lab. Its methods are safe for concurrent use, except Down.
type Lab struct {
	dir   string
	state state
	// holders waits for those that this process started, so that none stays a zombie.
	holders sync.WaitGroup
}

// Open finds a lab that is up, also a half-made one: by name, or by directory if s holds a slash; empty means
// DefaultName. One that is not there is fs.ErrNotExist.
func Open(s string) (*Lab, error) {
	dir, err := dirOf(s)
	if err != nil {
		return nil, err
	}
	st, err := loadState(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no lab at %s, make one with weft lab up: %w", dir, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	return &Lab{dir: dir, state: st}, nil
}

// Dir is the lab's directory. Each host has one of its own in it, named after it, which is all it sees of it.
func (l *Lab) Dir() string { return l.dir }

// Name is the lab's name.
func (l *Lab) Name() string { return l.state.Name }

// Nodes lists the names of the hosts that run an agent: n1..nN.
func (l *Lab) Nodes() []string {
	names := make([]string, l.state.Nodes)
	for i := range names {
		names[i] = NodeName(i + 1)
	}
	return names
}

// Hosts lists all hosts: the switch, the Consul server, the host outside, and the nodes.
func (l *Lab) Hosts() []Host { return slices.Clone(l.state.Hosts) }

// Host gives one host; an unknown one is fs.ErrNotExist.
func (l *Lab) Host(name string) (Host, error) {
	var names []string
	for _, h := range l.state.Hosts {
		if h.Name == name {
			return h, nil
		}
		names = append(names, h.Name)
	}
	return Host{}, fmt.Errorf("no host %q in the lab (it has %s): %w", name, strings.Join(names, ", "), fs.ErrNotExist)
}

// live is Host, and checks that the host runs.
func (l *Lab) live(name string) (Host, error) {
	h, err := l.Host(name)
	if err != nil {
		return h, err
	}
	if !(process{h.PID, h.Start}).alive() {
		return h, fmt.Errorf("host %s does not run, make the lab anew with weft lab down and weft lab up: %w", name, fs.ErrNotExist)
	}
	return h, nil
}

// Command is a command that runs in a host: in its namespaces, at /, with plain `weft` and `consul` on PATH talking to
// that host's agents. Its exit code is argv's, 128+n when signal n ended it, 127 when argv[0] was not found. Signals sent to it
// reach argv; killing it kills argv.
func (l *Lab) Command(host string, argv ...string) *exec.Cmd {
	return l.CommandContext(context.Background(), host, argv...)
}

// CommandContext is Command, killed when ctx ends.
func (l *Lab) CommandContext(ctx context.Context, host string, argv ...string) *exec.Cmd {
	args := append([]string{"lab", verbEnter, "--lab", l.dir, host, "--"}, argv...)
	return exec.CommandContext(ctx, l.state.Weft, args...)
}

// Output runs argv in a host and returns what it printed on standard output. The error of a command that fails holds
// what it printed on standard error.
func (l *Lab) Output(ctx context.Context, host string, argv ...string) (string, error) {
	cmd := l.CommandContext(ctx, host, argv...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("run %s on %s: %w: %s", strings.Join(argv, " "), host, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// Pids lists the processes of a host as they are seen outside, without its first one, which holds its namespaces.
// Processes in PID namespaces nested in it are not listed.
func (l *Lab) Pids(host string) ([]int, error) {
	h, err := l.live(host)
	if err != nil {
		return nil, err
	}
	own, err := os.Readlink(procPath(h.PID, "ns", "pid"))
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", host, err)
	}
	all, err := allPIDs()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, pid := range all {
		ns, err := os.Readlink(procPath(pid, "ns", "pid"))
		if err == nil && ns == own && pid != h.PID {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// StartAgent starts the weft agent of a node. It does not wait until it is ready: WaitReady does. An agent that runs
// already is fs.ErrExist.
func (l *Lab) StartAgent(ctx context.Context, host string) error {
	return l.daemonStart(ctx, host, daemonAgent, l.state.Weft, "agent", "--config", filepath.Join(l.dir, host, "weft.yaml"))
}

// StopAgent sends sig to the agent of a node. With TERM, KILL, INT, QUIT and ABRT it returns when the agent is gone,
// with others at once. An agent that does not run is fs.ErrNotExist.
func (l *Lab) StopAgent(ctx context.Context, host string, sig unix.Signal) error {
	return l.daemonStop(ctx, host, daemonAgent, sig)
}

// AgentPID is the agent's process as it is seen outside; fs.ErrNotExist when it does not run.
func (l *Lab) AgentPID(host string) (int, error) {
	p, err := l.daemon(host, daemonAgent)
	return p.PID, err
}

// StartConsul starts the Consul agent of a host: the server's on host Consul, else a client. It does not wait until it
// is ready.
func (l *Lab) StartConsul(ctx context.Context, host string) error {
	return l.daemonStart(ctx, host, daemonConsul, l.state.Consul, "agent", "-config-file", filepath.Join(l.dir, host, "consul.json"))
}

// StopConsul is StopAgent for the Consul agent of a host. With TERM a client leaves its cluster first.
func (l *Lab) StopConsul(ctx context.Context, host string, sig unix.Signal) error {
	return l.daemonStop(ctx, host, daemonConsul, sig)
}

// LogPath is the log of a host's agent or consul.
func (l *Lab) LogPath(host, daemon string) (string, error) {
	if _, err := l.Host(host); err != nil {
		return "", err
	}
	if daemon != daemonAgent && daemon != daemonConsul {
		return "", fmt.Errorf("log %q: want agent or consul", daemon)
	}
	return filepath.Join(l.dir, host, daemon+".log"), nil
}
