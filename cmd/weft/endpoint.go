package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func (a *app) endpointCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "endpoint COMMAND",
		Short:   "List and inspect endpoints",
		Example: "weft endpoint ls\nweft endpoint ls --local\nweft endpoint inspect web-1 -o json",
	}
	cmd.AddCommand(a.endpointListCommand(), a.endpointInspectCommand())
	return cmd
}

func (a *app) endpointListCommand() *cobra.Command {
	var network string
	var local bool
	cmd := &cobra.Command{
		Use:     "ls [flags]",
		Short:   "List the endpoints of the whole cluster",
		Example: "weft endpoint ls\nweft endpoint ls --network my-app --local -o json",
	}
	cmd.Flags().StringVar(&network, "network", "", "only of the network `NAME`")
	cmd.Flags().BoolVar(&local, "local", false, "only of this node")
	must(cmd.RegisterFlagCompletionFunc("network", a.complete(networkNames)))
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := a.client().Endpoints(cmd.Context())
		if err != nil {
			return err
		}
		es := all[:0]
		for _, e := range all {
			if (network == "" || e.Network == network) && (!local || e.Local) {
				es = append(es, e)
			}
		}
		return a.show(*o, es, func(w io.Writer) {
			fmt.Fprintln(w, "ENDPOINT\tID\tNETWORK\tNODE\tADDRESS\tMAC\tSERVICE\tSTATE")
			for _, e := range es {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Name, e.ID, e.Network, e.Node, e.Address, e.MAC, services(e), e.State)
			}
		})
	}
	return cmd
}

func (a *app) endpointInspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "inspect ENDPOINT [flags]",
		Short:             "Show one endpoint, by name or id",
		Args:              args("ENDPOINT"),
		Example:           "weft endpoint inspect web-1\nweft endpoint inspect web-1 -o json",
		ValidArgsFunction: a.complete(endpointNames),
	}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		e, err := a.client().Endpoint(cmd.Context(), got[0])
		if err != nil {
			return err
		}
		return a.show(*o, e, func(w io.Writer) {
			fmt.Fprintf(w, "name\t%s\nid\t%s\nnetwork\t%s\nnode\t%s\naddress\t%s\nmac\t%s\nservices\t%s\nstate\t%s\n",
				e.Name, e.ID, e.Network, e.Node, e.Address, e.MAC, services(e), e.State)
			if e.Local {
				fmt.Fprintf(w, "netns\t%s\ndns\t%s\n", e.NetNS, join(e.DNS))
			}
			if e.PID != 0 {
				fmt.Fprintf(w, "process\t%d\n", e.PID)
			}
		})
	}
	return cmd
}
