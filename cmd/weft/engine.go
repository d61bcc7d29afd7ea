package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"weft/pkg/engine"
)

// engineCommand is the userspace data path; the agent starts it.
func engineCommand() *cobra.Command {
	var cfg engine.Config
	level := "info"
	cmd := &cobra.Command{
		Use:     "engine --device NAME --netns NAME --mtu BYTES",
		Short:   "Used by the agent: userspace WireGuard for one device",
		Example: "weft engine --device weftwg0 --netns weft-t --mtu 1420",
		Hidden:  true,
	}
	cmd.Flags().StringVar(&cfg.Device, "device", "", "`NAME` of the WireGuard device")
	cmd.Flags().StringVar(&cfg.NetNS, "netns", "", "`NAME` of the namespace it lives in")
	cmd.Flags().IntVar(&cfg.MTU, "mtu", 0, "the device's MTU in `BYTES`")
	cmd.Flags().BoolVar(&cfg.Plain, "plain", false, "leave VXLAN to the kernel")
	cmd.Flags().StringVar(&level, "log-level", level, "debug, info, warn or error, as `LEVEL`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var l slog.Level
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return usagef("--log-level: %q is not debug, info, warn or error", level)
		}
		if cfg.Device == "" || cfg.MTU <= 0 {
			return usagef("--device and --mtu must be given")
		}
		cfg.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: l}))
		return engine.Run(cmd.Context(), cfg)
	}
	return cmd
}
