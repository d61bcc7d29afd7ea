package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"weft/pkg/api"
)

func (a *app) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "node COMMAND",
		Short:   "List, inspect, remove and forget the cluster's nodes",
		Example: "weft node ls\nweft node inspect n2\nweft node rm n3",
	}
	cmd.AddCommand(a.nodeListCommand(), a.nodeInspectCommand(), &cobra.Command{
		Use:               "rm NODE",
		Short:             "Remove a dead node: its addresses become free, the others forget it",
		Args:              args("NODE"),
		Example:           "weft node rm n3",
		ValidArgsFunction: a.complete(nodeNames),
		RunE: func(cmd *cobra.Command, got []string) error {
			return a.client().RemoveNode(cmd.Context(), got[0])
		},
	}, &cobra.Command{
		Use:   "forget NODE",
		Short: "Believe the next identity that comes under a node's name",
		Long: `Drop the identity that this node's agent has pinned for a node's name: the next one that comes under it is believed, as
if it were the first. Run it on every node that refuses a node that was set up anew, after making sure that it is yours.`,
		Args:              args("NODE"),
		Example:           "weft node forget n3",
		ValidArgsFunction: a.complete(nodeNames),
		RunE: func(cmd *cobra.Command, got []string) error {
			return a.client().ForgetNode(cmd.Context(), got[0])
		},
	})
	return cmd
}

func (a *app) nodeListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List the cluster's nodes",
		Example: "weft node ls\nweft node ls -o json",
	}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ns, err := a.client().Nodes(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(*o, ns, func(w io.Writer) {
			fmt.Fprintln(w, "NODE\tDATACENTER\tUNDERLAY\tMTU\tVTEP\tBACKEND\tVERSION\tENDPOINTS\tSTATE")
			for _, n := range ns {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%d\t%s\n", n.Name, n.Datacenter, join(n.Underlay),
					n.UnderlayMTU, n.VTEP, n.Backend, n.Version, n.Endpoints, nodeState(n))
			}
		})
	}
	return cmd
}

func (a *app) nodeInspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "inspect NODE [flags]",
		Short:             "Show one node with its keys",
		Args:              args("NODE"),
		Example:           "weft node inspect n2\nweft node inspect n2 -o json",
		ValidArgsFunction: a.complete(nodeNames),
	}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		n, err := a.client().Node(cmd.Context(), got[0])
		if err != nil {
			return err
		}
		return a.show(*o, n, func(w io.Writer) {
			fmt.Fprintf(w, "name\t%s\ndatacenter\t%s\nstate\t%s\nunderlay\t%s, mtu %d\nvtep\t%s\n",
				n.Name, n.Datacenter, nodeState(n), join(n.Underlay), n.UnderlayMTU, n.VTEP)
			fmt.Fprintf(w, "backend\t%s\nversion\t%s\nidentity\t%s\nwireguard\t%s\nendpoints\t%d\n",
				n.Backend, n.Version, n.Identity, cmp.Or(strings.Join(n.WireGuard, ", "), "-"), n.Endpoints)
		})
	}
	return cmd
}

func nodeState(n api.Node) string {
	switch {
	case n.Problem != "":
		return "refused: " + n.Problem
	case n.Left:
		return "left"
	case n.Self:
		return "this node"
	}
	return "member"
}
