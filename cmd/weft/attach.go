package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"weft/pkg/api"
	"weft/pkg/overlay"
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
	f.StringArrayVar(&spec.Aliases, "alias", nil, "another `NAME` for it; repeat for more")
	f.Var((*ports)(&spec.Ports), "port", "named `PORT`, as name=http,port=8080,proto=tcp; repeat for more")
	spec.Check = &api.CheckSpec{}
	f.StringVar(&spec.Check.Check, "health", "", "`CHECK`: tcp:PORT, http:PORT/PATH, cmd:COMMAND or none")
	f.StringVar(&spec.Check.Interval, "health-interval", "", "`TIME` from check to check; default 2s")
	f.StringVar(&spec.Check.Timeout, "health-timeout", "", "`TIME` for one check; default 1s")
	f.StringVar(&spec.Address, "ip", "", "its `ADDRESS`; default: the next free one")
}

// ports is the value of --port.
type ports []overlay.Port

func (p *ports) String() string {
	var out []string
	for _, x := range *p {
		out = append(out, fmt.Sprintf("name=%s,port=%d,proto=%s", x.Name, x.Port, x.Proto))
	}
	return strings.Join(out, " ")
}

// Type implements pflag.Value.
func (p *ports) Type() string { return "PORT" }

// Set implements pflag.Value.
func (p *ports) Set(s string) error {
	port, err := overlay.ParsePort(s)
	if err != nil {
		return err
	}
	*p = append(*p, port)
	return nil
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
	var drain bool
	cmd := &cobra.Command{
		Use:               "detach ENDPOINT [flags]",
		Short:             "Detach an endpoint of this node, by name or id",
		Args:              args("ENDPOINT"),
		Example:           "weft detach web-1\nweft detach 3f2a90c1d4e5 --drain",
		ValidArgsFunction: a.complete(localEndpointNames),
		RunE: func(cmd *cobra.Command, got []string) error {
			if drain {
				return a.client().Drain(cmd.Context(), got[0], api.DrainSpec{})
			}
			return a.client().Detach(cmd.Context(), got[0])
		},
	}
	cmd.Flags().BoolVar(&drain, "drain", false, "take its names away first, as weft drain does; takes 6 s")
	return cmd
}

func (a *app) drainCommand() *cobra.Command {
	var spec api.DrainSpec
	cmd := &cobra.Command{
		Use:   "drain ENDPOINT [flags]",
		Short: "Take an endpoint's names away, then detach it",
		Long: "Take the names of an endpoint of this node away, on all nodes; when no resolver can know them any\n" +
			"more, after 6 s, detach it. So new clients stay away before its address goes.",
		Args:              args("ENDPOINT"),
		Example:           "weft drain web-1\nweft drain web-1 --keep",
		ValidArgsFunction: a.complete(localEndpointNames),
		RunE: func(cmd *cobra.Command, got []string) error {
			return a.client().Drain(cmd.Context(), got[0], spec)
		},
	}
	cmd.Flags().BoolVar(&spec.Keep, "keep", false, "leave it attached, without names; returns at once")
	return cmd
}
