package lab

import (
	"context"
	"time"

	"weft/pkg/api"
)

// Status says how a lab is.
type Status struct {
	Name    string    `json:"name"`
	Dir     string    `json:"dir"`
	Created time.Time `json:"created"`
	Nodes   int       `json:"nodes"`
	Backend string    `json:"backend"`
	MTU     int       `json:"mtu"`
	// Ready is false while Up is at work, and after an Up that was killed.
	Ready bool         `json:"ready"`
	Hosts []HostStatus `json:"hosts"`
}

// HostStatus says how one host of a lab is.
type HostStatus struct {
	Host
	Up bool `json:"up"`
	// Consul and Agent are nil on hosts that have none.
	Consul *DaemonStatus `json:"consul,omitempty"`
	Agent  *DaemonStatus `json:"agent,omitempty"`
	// Weft is what the agent says of itself, nil when it does not answer.
	Weft *api.Status `json:"weft,omitempty"`
}

// DaemonStatus says how a host's Consul or weft agent is.
type DaemonStatus struct {
	PID     int    `json:"pid"` // as seen outside; 0 when it does not run
	OK      bool   `json:"ok"`  // it answers, and Consul has a leader
	Problem string `json:"problem,omitempty"`
}

// statusTimeout bounds the questions to one host.
const statusTimeout = 3 * time.Second

// Status asks every host.
func (l *Lab) Status(ctx context.Context) Status {
	s := Status{Name: l.state.Name, Dir: l.dir, Created: l.state.Created, Nodes: l.state.Nodes,
		Backend: l.state.Backend, MTU: l.state.MTU, Ready: l.state.Ready}
	for _, h := range l.state.Hosts {
		s.Hosts = append(s.Hosts, l.hostStatus(ctx, h))
	}
	return s
}

func (l *Lab) hostStatus(ctx context.Context, h Host) HostStatus {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	s := HostStatus{Host: h, Up: process{h.PID, h.Start}.alive()}
	if h.Name == Switch || h.Name == Out {
		return s
	}
	s.Consul = l.daemonStatus(h.Name, daemonConsul, func() error {
		var leader string
		if err := l.ConsulGet(ctx, h.Name, "/v1/status/leader", &leader); err != nil || leader != "" {
			return err
		}
		return errNoLeader
	})
	if h.Name == Consul {
		return s
	}
	s.Agent = l.daemonStatus(h.Name, daemonAgent, func() error {
		status, err := l.AgentStatus(ctx, h.Name)
		if err == nil {
			s.Weft = &status
		}
		return err
	})
	return s
}

func (l *Lab) daemonStatus(host, name string, ask func() error) *DaemonStatus {
	p, err := l.daemon(host, name)
	if err == nil {
		err = ask()
	}
	if err != nil {
		return &DaemonStatus{PID: p.PID, Problem: err.Error()}
	}
	return &DaemonStatus{PID: p.PID, OK: true}
}
