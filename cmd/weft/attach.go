package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"weft/pkg/api"
)

func (a *app) attachCommand() *cobra.Command {
	spec := api.AttachSpec{}
	cmd := &cobra.Command{
		Use:   "attach NETWORK (--netns PATH | --pid PID) [flags]",
		Short: "Attach a network namespace that exists, by its path or a process in it",
		Long: "Attach a network namespace that exists. With --pid the endpoint ends with that process; with\n" +
			"--netns it stays until weft detach, or until the namespace is gone.",
		Args: args("NETWORK"),
		Example: `weft attach my-app --netns /run/netns/blue --name web-1 --service web
weft attach my-app --pid 4711 --ip 10.0.0.7 -o json`,
		ValidArgsFunction: a.complete(networkNames),
	}
	endpointFlags(cmd, &spec)
	f := cmd.Flags()
	f.StringVar(&spec.NetNS, "netns", "", "the namespace's `PATH`, such as /run/netns/blue")
	f.IntVar(&spec.PID, "pid", 0, "a process (`PID`) in the namespace")
	f.StringVar(&spec.ID, "id", "", "the endpoint's `ID`; default: chosen. Attaching an ID again changes nothing")
	f.StringVar(&spec.IfName, "ifname", "eth0", "`NAME` of the interface inside")
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		spec.Network = got[0]
		pid, netns := cmd.Flags().Changed("pid"), cmd.Flags().Changed("netns")
		switch {
		case pid == netns:
			return usagef("give either --netns or --pid")
		case pid && spec.PID <= 0:
			return usagef("--pid %d is not a process id", spec.PID)
		case netns && spec.NetNS == "":
			return usagef("--netns is empty")
		}
		if netns {
			// The agent's working directory is not ours.
			abs, err := filepath.Abs(spec.NetNS)
			if err != nil {
				return fmt.Errorf("find namespace %s: %w", spec.NetNS, err)
			}
			spec.NetNS = abs
		}
		att, err := a.client().Attach(cmd.Context(), spec)
		if err != nil {
			return err
		}
		return a.showAttachment(*o, att)
	}
	return cmd
}

// endpointFlags are what attach and run have in common.
func endpointFlags(cmd *cobra.Command, spec *api.AttachSpec) {
	f := cmd.Flags()
	f.StringVar(&spec.Name, "name", "", "`NAME` of the endpoint; default: its id")
	f.StringArrayVar(&spec.Services, "service", nil, "`NAME` of a service it is part of; repeat for more")
	f.StringVar(&spec.Address, "ip", "", "its `ADDRESS`; default: the next free one")
}

func (a *app) showAttachment(o output, att api.Attachment) error {
	if att.Warning != "" {
		a.warn("%s", att.Warning)
	}
	return a.show(o, att, func(w io.Writer) {
		fmt.Fprintf(w, "id\t%s\nname\t%s\nnetwork\t%s\naddress\t%s\nmac\t%s\nmtu\t%d\ngateway\t%s\ndns\t%s\nnetns\t%s\n",
			att.ID, att.Name, att.Network, att.Address, att.MAC, att.MTU, address(att.Gateway), join(att.DNS), att.NetNS)
	})
}

func (a *app) detachCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "detach ENDPOINT",
		Short:             "Detach an endpoint of this node, by name or id",
		Args:              args("ENDPOINT"),
		Example:           "weft detach web-1\nweft detach 3f2a90c1d4e5",
		ValidArgsFunction: a.complete(localEndpointNames),
		RunE: func(cmd *cobra.Command, got []string) error {
			return a.client().Detach(cmd.Context(), got[0])
		},
	}
}
