package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Root is where labs live by default: below /run, so that a restart of the machine forgets them, and short, because
// the paths of unix sockets end at 107 bytes.
const Root = "/run/weft-lab"

// DefaultName is the lab's name where none is given.
const DefaultName = "default"

// Limits of Options.
const (
	MaxNodes = 100
	minMTU   = 1280
	maxMTU   = 65535
)

// Options says what lab to make. The zero value is a lab of three nodes.
type Options struct {
	// Dir is the lab's directory, which must not exist; empty means Root/Name.
	Dir string
	// Name is the lab's name, lower-case letters, digits, dash and underscore, at most 32; empty means DefaultName, or
	// the last element of Dir when that is set.
	Name string
	// Nodes is how many hosts n1..nN run an agent, 1 to MaxNodes; 0 means 3.
	Nodes int
	// Backend is wireguard.backend of every agent: auto, kernel or engine (or engine-tun, for comparison); empty means
	// auto.
	Backend string
	// Backends is what differs from Backend, by the name of the node.
	Backends map[string]string
	// Consul is the path of the Consul binary; empty looks on PATH, then beside the weft binary.
	Consul string
	// Weft is the path of the weft binary; empty means the running executable.
	Weft string
	// MTU of the underlay in bytes, 1280 to 65535; 0 means 1500.
	MTU int
	// ConfigExtra is YAML merged over each agent's configuration.
	ConfigExtra string
	// NoAgents leaves the weft agents to be started by StartAgent.
	NoAgents bool
	// Progress, when set, is told each step as a line, as "[1/5] hosts ... 0.1 s". It is called from Up's goroutine.
	Progress func(string)
}

var backends = []string{"auto", "kernel", "engine", "engine-tun"}

var nameGrammar = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

// dirOf is the directory of the lab that s means: a path when it holds a slash, else a name below Root.
func dirOf(s string) (string, error) {
	if s == "" {
		s = DefaultName
	}
	if strings.Contains(s, "/") {
		return filepath.Abs(s)
	}
	if !nameGrammar.MatchString(s) {
		return "", fmt.Errorf("lab name %q: want lower-case letters, digits, - and _, at most 32", s)
	}
	return filepath.Join(Root, s), nil
}

// complete fills in what is unset and checks the rest.
func (o Options) complete() (Options, error) {
	o, err := o.defaults()
	if err != nil {
		return o, err
	}
	switch {
	case !nameGrammar.MatchString(o.Name):
		return o, fmt.Errorf("lab name %q: want lower-case letters, digits, - and _, at most 32", o.Name)
	case o.Nodes < 1 || o.Nodes > MaxNodes:
		return o, fmt.Errorf("lab of %d nodes: want 1 to %d", o.Nodes, MaxNodes)
	case !slices.Contains(backends, o.Backend):
		return o, fmt.Errorf("backend %q: want auto, kernel or engine", o.Backend)
	case o.MTU < minMTU || o.MTU > maxMTU:
		return o, fmt.Errorf("underlay MTU %d: want %d to %d", o.MTU, minMTU, maxMTU)
	}
	for node, backend := range o.Backends {
		if !slices.Contains(backends, backend) {
			return o, fmt.Errorf("backend %q of %s: want auto, kernel or engine", backend, node)
		}
	}
	for what, path := range map[string]string{"weft": o.Weft, "consul": o.Consul} {
		if under(path, "/run") {
			return o, fmt.Errorf("%s binary %s: /run is hidden from the lab's hosts: copy it elsewhere", what, path)
		}
	}
	return o, nil
}

func (o Options) defaults() (Options, error) {
	if o.Name == "" && o.Dir != "" {
		o.Name = filepath.Base(o.Dir)
	}
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Dir == "" {
		o.Dir = filepath.Join(Root, o.Name)
	}
	o.Nodes = orInt(o.Nodes, 3)
	o.MTU = orInt(o.MTU, 1500)
	if o.Backend == "" {
		o.Backend = "auto"
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return o, fmt.Errorf("find lab directory: %w", err)
	}
	if o.Weft, err = findWeft(o.Weft); err != nil {
		return o, err
	}
	o.Consul, err = findConsul(o.Consul, o.Weft)
	return o, err
}

func orInt(v, otherwise int) int {
	if v == 0 {
		return otherwise
	}
	return v
}

func findWeft(path string) (string, error) {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find weft binary: %w", err)
		}
		path = self
	}
	return realFile("weft", path)
}

// findConsul looks on PATH and where `make consul` leaves the binary: beside weft.
func findConsul(path, weft string) (string, error) {
	if path != "" {
		return realFile("consul", path)
	}
	if found, err := exec.LookPath("consul"); err == nil {
		return realFile("consul", found)
	}
	beside := filepath.Join(filepath.Dir(weft), "consul")
	if found, err := realFile("consul", beside); err == nil {
		return found, nil
	}
	return "", fmt.Errorf("find consul binary, not on PATH and no %s (run make consul, or name it with --consul): %w",
		beside, fs.ErrNotExist)
}

// realFile is path without symbolic links: a link may lead through what the hosts do not see.
func realFile(what, path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", fmt.Errorf("find %s binary: %w", what, err)
	}
	if fi, err := os.Stat(abs); err != nil || fi.IsDir() {
		return "", fmt.Errorf("find %s binary %s: %w", what, abs, errors.Join(err, fs.ErrInvalid))
	}
	return abs, nil
}

// under says whether path lies below dir.
func under(path, dir string) bool { return strings.HasPrefix(path, dir+"/") }
