package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// downTimeout bounds the clearing up after a failed Up.
const downTimeout = 30 * time.Second

// Up makes a lab and returns when it is ready: hosts joined, Consul up on all, and, unless NoAgents is set, every
// agent answering and knowing all others. On failure, also when ctx ends, it takes down what it made. It needs root:
// without it the error is fs.ErrPermission. A lab of that name that exists already is fs.ErrExist.
func Up(ctx context.Context, o Options) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("make lab: needs root, for namespaces: %w", fs.ErrPermission)
	}
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	l, err := create(o)
	if err != nil {
		return nil, err
	}
	if err := l.up(ctx, o); err != nil {
		clear, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTimeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("make lab %s: %w", o.Name, err), l.Down(clear))
	}
	return l, nil
}

// create claims the directory: mkdir succeeds for one only.
func create(o Options) (*Lab, error) {
	if err := os.MkdirAll(filepath.Dir(o.Dir), 0o755); err != nil {
		return nil, fmt.Errorf("make lab directory: %w", err)
	}
	err := os.Mkdir(o.Dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make lab %s in %s: %w, take it down first with weft lab down --name %s",
			o.Name, o.Dir, fs.ErrExist, o.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("make lab directory: %w", err)
	}
	l := &Lab{dir: o.Dir, state: newState(o)}
	err = l.state.save(l.dir)
	if err == nil {
		err = l.writeConfigs(o.ConfigExtra)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(o.Dir))
	}
	return l, nil
}

func (l *Lab) up(ctx context.Context, o Options) error {
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"hosts " + NodeName(1) + " to " + NodeName(o.Nodes) + ", consul, out, switch", l.startHosts},
		{"network", func(context.Context) error { return l.wire() }},
		{"consul server", func(ctx context.Context) error { return l.startConsul(ctx, Consul) }},
		{"consul clients", func(ctx context.Context) error { return l.onNodes(ctx, l.startConsul) }},
		{"weft agents", func(ctx context.Context) error { return l.onNodes(ctx, l.startAgent) }},
		{"mesh", func(ctx context.Context) error { return l.onNodes(ctx, l.WaitReady) }},
	}
	if o.NoAgents {
		steps = steps[:4]
	}
	for i, s := range steps {
		begin := time.Now()
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.run(ctx); err != nil {
			return err
		}
		o.Progress(fmt.Sprintf("[%d/%d] %s ... %.1f s", i+1, len(steps), s.name, time.Since(begin).Seconds()))
	}
	l.state.Ready = true
	return l.state.save(l.dir)
}

// startHosts clones all holders, each recorded before it goes on, and waits until they made their hosts.
func (l *Lab) startHosts(ctx context.Context) error {
	var begun []*starting
	defer func() {
		for _, s := range begun {
			s.ready.Close()
		}
	}()
	for i, h := range l.state.Hosts {
		s, err := startHolder(l.dir, h.Name, l.state.Weft)
		if err != nil {
			return err
		}
		l.state.Hosts[i].PID, l.state.Hosts[i].Start = s.proc.PID, s.proc.Start
		if err := l.state.save(l.dir); err != nil {
			s.abandon()
			return err
		}
		l.holders.Go(func() { _ = s.cmd.Wait() }) // how it ends does not matter
		begun = append(begun, s)
		if err := s.release(); err != nil {
			return err
		}
	}
	for _, s := range begun {
		if err := s.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// onNodes runs fn for all nodes at a time.
func (l *Lab) onNodes(ctx context.Context, fn func(ctx context.Context, host string) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, n := range l.Nodes() {
		g.Go(func() error { return fn(ctx, n) })
	}
	return g.Wait()
}

func (l *Lab) startConsul(ctx context.Context, host string) error {
	if err := l.StartConsul(ctx, host); err != nil {
		return err
	}
	return l.WaitConsul(ctx, host)
}

func (l *Lab) startAgent(ctx context.Context, host string) error {
	if err := l.StartAgent(ctx, host); err != nil {
		return err
	}
	return l.await(ctx, host, daemonAgent, func(ctx context.Context) error {
		_, err := l.AgentStatus(ctx, host)
		return err
	})
}
