package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"weft/pkg/agent"
	"weft/pkg/config"
)

func newAgentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent [--config PATH] [--dev]",
		Short: "Run this node's agent",
		Long: `Run this node's agent in the foreground: it joins the cluster in Consul, keeps the networks of this host as they should be,
and serves the other commands. Stopping it leaves the networks running; "weft leave" takes them down.`,
		Example: `weft agent --config /etc/weft/weft.yaml
weft agent --dev                  a throwaway Consul and temporary data, for trying`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts := config.Options{Flags: cmd.Flags()}
			loaded, err := config.Load(opts)
			if err != nil {
				return configErrors(cmd, err)
			}
			return runAgent(cmd.Context(), loaded, opts)
		},
	}
	config.RegisterFlags(cmd.Flags())
	return cmd
}

func runAgent(ctx context.Context, loaded *config.Loaded, opts config.Options) error {
	var level slog.LevelVar
	log := newLogger(loaded.Config.Log, &level)
	for _, w := range loaded.Warnings {
		log.Warn("configuration", "warning", w)
	}
	cfg := loaded.Config
	if cfg.Dev {
		stop, err := startDev(ctx, &cfg, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	reload := make(chan config.Config)
	a, err := agent.New(ctx, agent.Options{Config: cfg, Log: log, Version: buildInfo().Version, Reload: reload, Level: &level,
		LeaveOnStop: cfg.Dev, Ready: func() { notify(log, daemon.SdNotifyReady) }})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	if !cfg.Dev {
		g.Go(func() error { return watchConfig(gctx, loaded, opts, reload, log) })
	}
	g.Go(func() error {
		defer cancel()
		return a.Run(ctx)
	})
	err = g.Wait()
	notify(log, daemon.SdNotifyStopping)
	return errors.Join(err, a.Close())
}

func newLogger(cfg config.Log, level *slog.LevelVar) *slog.Logger {
	level.Set(cfg.Level)
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Format == config.FormatJSON {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("service manager not told", "state", state, "err", err)
	}
}

// startDev gives the agent a Consul and a directory that go with it.
func startDev(ctx context.Context, cfg *config.Config, log *slog.Logger) (stop func(), err error) {
	dir, err := os.MkdirTemp("", "weft-dev-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary directory: %w", err)
	}
	consul, err := agent.StartDevConsul(ctx, cfg.Consul.Binary, cfg.Consul.Address, dir, log)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	cfg.Consul.Address, cfg.DataDir = consul.Address, dir+"/data"
	return func() {
		if err := errors.Join(consul.Stop(), os.RemoveAll(dir)); err != nil {
			log.Error("throwaway consul not cleaned up", "err", err)
		}
	}, nil
}

// watchConfig delivers new settings when the files change or on SIGHUP; settings with a fault are reported, not used.
func watchConfig(ctx context.Context, loaded *config.Loaded, opts config.Options, reload chan<- config.Config, log *slog.Logger) error {
	deliver := func(next *config.Loaded, err error) {
		if err != nil {
			log.Error("new configuration not used", "err", err)
			return
		}
		select {
		case reload <- next.Config:
		case <-ctx.Done():
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return config.Watch(ctx, loaded, opts, deliver) })
	g.Go(func() error {
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hup:
				deliver(config.Load(opts))
			}
		}
	})
	return g.Wait()
}
