package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/pkg/api"
)

func (a *app) networkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "network COMMAND",
		Short: "Create, list, inspect and remove networks",
		Example: `weft network create my-app --encrypted
weft network ls
weft network inspect my-app -o json`,
	}
	cmd.AddCommand(a.networkCreateCommand(), a.networkListCommand(), a.networkInspectCommand(), a.networkRemoveCommand())
	return cmd
}

func (a *app) networkCreateCommand() *cobra.Command {
	var spec api.NetworkSpec
	cmd := &cobra.Command{
		Use:   "create NAME [flags]",
		Short: "Create a network for the whole cluster; what is not given is chosen",
		Args:  args("NAME"),
		Example: `weft network create my-app --encrypted
weft network create db --subnet 10.20.0.0/24 --ip-range 10.20.0.128/25 --internal`,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&spec.Subnet, "subnet", "", "address range, as `CIDR`")
	f.StringVar(&spec.IPRange, "ip-range", "", "part of the subnet to take addresses from, as `CIDR`")
	f.StringVar(&spec.Gateway, "gateway", "", "gateway `IP`; default: the subnet's first")
	f.BoolVar(&spec.Encrypted, "encrypted", false, "carry it inside WireGuard")
	f.IntVar(&spec.MTU, "mtu", 0, "endpoint MTU in `BYTES`; default: what the smallest underlay allows")
	f.BoolVar(&spec.Internal, "internal", false, "no way out of the network")
	f.BoolVar(&spec.AllowOverlap, "allow-overlap", false, "accept a subnet that another network has too")
	labels := f.StringArray("label", nil, "label `K=V`; repeat for more")
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		spec.Name = got[0]
		if cmd.Flags().Changed("mtu") && spec.MTU <= 0 {
			return usagef("--mtu %d: want a positive number of bytes", spec.MTU)
		}
		var err error
		if spec.Labels, err = parseLabels(*labels); err != nil {
			return err
		}
		n, err := a.client().CreateNetwork(cmd.Context(), spec)
		if err != nil {
			return err
		}
		return a.show(*o, n, func(w io.Writer) {
			fmt.Fprintf(w, "created network %s: %s, gateway %s, %s, mtu %d\n", n.Name, join(n.Subnets), n.Gateway, networkKind(n), n.MTU)
		})
	}
	return cmd
}

// parseLabels reads K=V, where V may hold anything.
func parseLabels(list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	labels := map[string]string{}
	for _, l := range list {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return nil, usagef("--label %q is not K=V", l)
		}
		labels[k] = v
	}
	return labels, nil
}

func (a *app) networkListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List the cluster's networks",
		Example: "weft network ls\nweft network ls -o json",
	}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ns, err := a.client().Networks(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(*o, ns, func(w io.Writer) {
			fmt.Fprintln(w, "NAME\tID\tVNI\tSUBNET\tKIND\tMTU\tENDPOINTS\tNODES\tHERE")
			for _, n := range ns {
				fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%d\t%d\t%d\t%s\n", n.Name, n.ID, n.VNI, join(n.Subnets),
					networkKind(n), n.MTU, n.EndpointCount, n.Nodes, yes(n.Local))
			}
		})
	}
	return cmd
}

func (a *app) networkInspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "inspect NAME [flags]",
		Short:             "Show a network with every endpoint of the whole cluster",
		Args:              args("NAME"),
		Example:           "weft network inspect my-app\nweft network inspect my-app -o json",
		ValidArgsFunction: a.complete(networkNames),
	}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		n, err := a.client().Network(cmd.Context(), got[0])
		if err != nil {
			return err
		}
		return a.show(*o, n, func(w io.Writer) { writeNetwork(w, n) })
	}
	return cmd
}

func (a *app) networkRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME",
		Short:             "Remove a network; refused while it has endpoints",
		Args:              args("NAME"),
		Example:           "weft network rm my-app",
		ValidArgsFunction: a.complete(networkNames),
		RunE: func(cmd *cobra.Command, got []string) error {
			return a.client().RemoveNetwork(cmd.Context(), got[0])
		},
	}
}

// writeNetwork is the text of inspect.
func writeNetwork(w io.Writer, n api.Network) {
	fmt.Fprintf(w, "name\t%s\nid\t%s\nvni\t%d\nsubnets\t%s\n", n.Name, n.ID, n.VNI, join(n.Subnets))
	if n.IPRange != "" {
		fmt.Fprintf(w, "ip range\t%s\n", n.IPRange)
	}
	fmt.Fprintf(w, "gateway\t%s\nkind\t%s\nmtu\t%d\n", n.Gateway, networkKind(n), n.MTU)
	if !n.Created.IsZero() {
		fmt.Fprintf(w, "created\t%s\n", n.Created.Format(time.RFC3339))
	}
	for _, k := range slices.Sorted(maps.Keys(n.Labels)) {
		fmt.Fprintf(w, "label\t%s=%s\n", k, n.Labels[k])
	}
	for _, p := range n.Problems {
		fmt.Fprintf(w, "problem\t%s\n", p)
	}
	fmt.Fprintf(w, "endpoints\t%d on %d nodes\n", n.EndpointCount, n.Nodes)
	if len(n.Endpoints) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintln(w, "ENDPOINT\tID\tNODE\tADDRESS\tMAC\tSERVICE\tSTATE")
		for _, e := range n.Endpoints {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Name, e.ID, e.Node, e.Address, e.MAC, services(e), e.State)
		}
	}
}

// networkKind says in words how a network differs from an ordinary one.
func networkKind(n api.Network) string {
	kind := "plain"
	if n.Encrypted {
		kind = "encrypted"
	}
	if n.Internal {
		kind += ", internal"
	}
	return kind
}

func services(e api.Endpoint) string {
	if len(e.Services) > 0 {
		return strings.Join(e.Services, ",")
	}
	return cmp.Or(e.Service, "-")
}

// join lists addresses or prefixes, "-" when there is none.
func join[T netip.Addr | netip.Prefix](list []T) string {
	var out []string
	for _, v := range list {
		out = append(out, fmt.Sprint(v))
	}
	return cmp.Or(strings.Join(out, ","), "-")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "-"
}
