package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"weft/keys/store"
	"weft/pkg/api"
	"weft/pkg/netns"
)

// netnsCommand makes named namespaces on a network, for systemd units to join; see deploy/systemd/weft-netns@.service.
func (a *app) netnsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "netns COMMAND",
		Short:  "Make a named network namespace on a network, for systemd units to join",
		Hidden: true, // the unit template is what people use
		Example: `weft netns up my-app web --service web
weft netns down web`,
	}
	cmd.AddCommand(a.netnsUpCommand(), a.netnsDownCommand())
	return cmd
}

// netnsID is the endpoint of a named namespace.
func netnsID(name string) string { return "netns:" + name }

// netnsResolv is the resolv.conf of a named namespace, for units to bind over /etc/resolv.conf.
func netnsResolv(name string) string { return filepath.Join("/run/weft/netns", name, "resolv.conf") }

func (a *app) netnsUpCommand() *cobra.Command {
	var spec api.AttachSpec
	cmd := &cobra.Command{
		Use:   "up NETWORK NAME [flags]",
		Short: "Make namespace NAME and attach it; again changes nothing",
		Long: "Make the network namespace /run/netns/NAME, attach it, and write /run/weft/netns/NAME/resolv.conf,\n" +
			"which leads to the network's names.",
		Args:              args("NETWORK", "NAME"),
		Example:           "weft netns up my-app web --service web",
		ValidArgsFunction: a.complete(networkNames),
	}
	endpointFlags(cmd, &spec)
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		name := got[1]
		if spec.Network, spec.ID = got[0], netnsID(name); spec.Name == "" {
			spec.Name = name
		}
		there, err := netns.Exists(name)
		if err != nil {
			return err
		}
		if !there {
			if err := netns.Create(name); err != nil {
				return err
			}
		}
		spec.NetNS = netns.Path(name)
		c := a.client()
		att, err := c.Attach(cmd.Context(), spec)
		if errors.Is(err, os.ErrExist) && !there {
			// What was of this name before is gone, and the agent is about to see it.
			if err = c.Detach(cmd.Context(), spec.ID); err == nil || errors.Is(err, os.ErrNotExist) {
				att, err = c.Attach(cmd.Context(), spec)
			}
		}
		if err == nil {
			err = writeNetnsResolv(name, att)
		}
		if err != nil {
			if !there {
				err = errors.Join(err, netns.Delete(name))
			}
			return err
		}
		return a.showAttachment(outputText, att)
	}
	return cmd
}

func writeNetnsResolv(name string, att api.Attachment) error {
	path := netnsResolv(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write resolv.conf: %w", err)
	}
	return store.WriteFile(path, []byte(resolvConf(att.DNS)), 0o644)
}

func (a *app) netnsDownCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "down NAME",
		Short:   "Detach and remove what up made; what is gone already is fine",
		Args:    args("NAME"),
		Example: "weft netns down web",
		RunE: func(cmd *cobra.Command, got []string) error {
			name := got[0]
			err := a.client().Detach(cmd.Context(), netnsID(name))
			if errors.Is(err, os.ErrNotExist) {
				err = nil
			}
			// Without its namespace the agent ends the endpoint by itself, also one that could not be detached now.
			if derr := netns.Delete(name); derr != nil && !errors.Is(derr, os.ErrNotExist) {
				err = errors.Join(err, derr)
			}
			if rerr := os.Remove(netnsResolv(name)); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
				err = errors.Join(err, rerr)
			}
			_ = os.Remove(filepath.Dir(netnsResolv(name))) // it may never have been made
			return err
		},
	}
}
