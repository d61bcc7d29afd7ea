package api

// Validate checks what can be told from the request alone: the name is there. Its error is an *Error of code Invalid.
func (s NetworkSpec) Validate() error {
	if s.Name == "" {
		return Errorf(Invalid, "create network: it needs a name")
	}
	if s.MTU < 0 {
		return Errorf(Invalid, "create network %s: mtu %d is negative; leave it out to have it chosen", s.Name, s.MTU)
	}
	return nil
}

// Validate checks what can be told from the request alone: a network, and exactly one way to find the namespace. Its
// error is an *Error of code Invalid.
func (s AttachSpec) Validate() error {
	switch {
	case s.Network == "":
		return Errorf(Invalid, "attach: it needs a network")
	case s.PID < 0:
		return Errorf(Invalid, "attach to %s: pid %d is not a process id", s.Network, s.PID)
	case s.NewNetNS && (s.NetNS != "" || s.PID != 0):
		return Errorf(Invalid, "attach to %s: newNetns excludes netns and pid", s.Network)
	case !s.NewNetNS && s.NetNS == "" && s.PID == 0:
		return Errorf(Invalid, "attach to %s: say which namespace: netns, pid or newNetns", s.Network)
	}
	return nil
}

// Validate checks that p names a process. Its error is an *Error of code Invalid.
func (p Process) Validate() error {
	if p.PID <= 0 {
		return Errorf(Invalid, "set process: pid %d is not a process id", p.PID)
	}
	return nil
}
