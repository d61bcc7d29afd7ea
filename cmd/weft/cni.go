package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"weft/keys/store"
	"weft/pkg/api"
	"weft/pkg/cni"
)

func (a *app) cniCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cni COMMAND",
		Short: "Give networks to container runtimes through CNI: Nomad, Podman, containerd",
		Example: `weft cni install my-app
weft cni uninstall my-app`,
	}
	cmd.AddCommand(a.cniInstallCommand(), a.cniUninstallCommand())
	return cmd
}

// cniFlags are where configurations lie.
func cniFlags(cmd *cobra.Command) *string {
	return cmd.Flags().String("dir", "/etc/cni/net.d", "the runtimes' configuration `DIR`")
}

func (a *app) cniInstallCommand() *cobra.Command {
	var s cni.Settings
	var version string
	cmd := &cobra.Command{
		Use:   "install NETWORK... [flags]",
		Short: "Write a CNI configuration for each network",
		Long: "Write a CNI configuration for each network, 50-weft-NETWORK.conflist. Runtimes then know the\n" +
			"network by its name. The plugin weft-cni must be in their plugin directory, often /opt/cni/bin.",
		Args: someArgs("NETWORK"),
		Example: `weft cni install my-app
weft cni install my-app db --dir /opt/cni/config     # Nomad`,
		ValidArgsFunction: a.complete(networkNames),
	}
	dir := cniFlags(cmd)
	cmd.Flags().StringArrayVar(&s.Services, "service", nil, "`NAME` of a service that each container is part of; repeat for more")
	cmd.Flags().StringVar(&version, "cni-version", "1.0.0", "`VERSION` of the specification")
	cmd.Flags().StringVar(&s.DNS, "dns", "", "`MODE`: weft or none; default weft: containers ask weft for names")
	cmd.Flags().BoolVar(&s.HostRoute, "host-ports", false, "let the host reach containers, and the plugin portmap publish their ports")
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		if a.socket != api.DefaultSocket {
			s.Socket = a.socket
		}
		if s.DNS != "" && s.DNS != "weft" && s.DNS != "none" {
			return usagef("--dns %q: want weft or none", s.DNS)
		}
		if err := os.MkdirAll(*dir, 0o755); err != nil {
			return fmt.Errorf("make configuration directory: %w", err)
		}
		for _, name := range got {
			n, err := a.client().Network(cmd.Context(), name)
			if err != nil {
				return err
			}
			s.Network = n.Name
			data, err := cni.Conflist(n.Name, version, s)
			if err != nil {
				return err
			}
			path := filepath.Join(*dir, cni.ConflistName(n.Name))
			if err := store.WriteFile(path, data, 0o644); err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, path)
		}
		return nil
	}
	return cmd
}

func (a *app) cniUninstallCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uninstall NETWORK... [flags]",
		Short: "Remove the CNI configurations that install wrote",
		Long: "Remove the CNI configurations that install wrote. Containers that run keep their interfaces; a\n" +
			"runtime may need the configuration to detach them, so remove them first.",
		Args:    someArgs("NETWORK"),
		Example: "weft cni uninstall my-app",
	}
	dir := cniFlags(cmd)
	cmd.RunE = func(_ *cobra.Command, got []string) error {
		var errs []error
		for _, name := range got {
			if filepath.Base(name) != name {
				errs = append(errs, usagef("%q is not a network's name", name))
				continue
			}
			if err := os.Remove(filepath.Join(*dir, cni.ConflistName(name))); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
	return cmd
}

// someArgs accepts one positional argument or more.
func someArgs(name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, got []string) error {
		if len(got) == 0 {
			return usagef("%s is missing", name)
		}
		for _, g := range got {
			if g == "" {
				return usagef("%s is empty", name)
			}
		}
		return nil
	}
}
