package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"weft/pkg/api"
)

func (a *app) serviceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "service COMMAND",
		Short:   "List and inspect services",
		Example: "weft service ls\nweft service inspect web --network my-app",
	}
	cmd.AddCommand(a.serviceListCommand(), a.serviceInspectCommand())
	return cmd
}

func (a *app) serviceListCommand() *cobra.Command {
	var network string
	cmd := &cobra.Command{
		Use:     "ls [flags]",
		Short:   "List the services of the whole cluster",
		Example: "weft service ls\nweft service ls --network my-app -o json",
	}
	cmd.Flags().StringVar(&network, "network", "", "only of the network `NAME`")
	must(cmd.RegisterFlagCompletionFunc("network", a.complete(networkNames)))
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := a.client().Services(cmd.Context())
		if err != nil {
			return err
		}
		some := all[:0]
		for _, s := range all {
			if network == "" || s.Network == network {
				some = append(some, s)
			}
		}
		return a.show(*o, some, func(w io.Writer) {
			fmt.Fprintln(w, "SERVICE\tNETWORK\tINSTANCES\tANSWERED\tNODES")
			for _, s := range some {
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\n", s.Name, s.Network, len(s.Instances), s.Answered, s.Nodes)
			}
		})
	}
	return cmd
}

func (a *app) serviceInspectCommand() *cobra.Command {
	var network string
	cmd := &cobra.Command{
		Use:     "inspect SERVICE [flags]",
		Short:   "Show the instances of a service, their health and nodes",
		Args:    args("SERVICE"),
		Example: "weft service inspect web\nweft service inspect web --network my-app -o json",
	}
	cmd.Flags().StringVar(&network, "network", "", "the network's `NAME`; needed when several have such a service")
	must(cmd.RegisterFlagCompletionFunc("network", a.complete(networkNames)))
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		s, err := a.findService(cmd, network, got[0])
		if err != nil {
			return err
		}
		return a.show(*o, s, func(w io.Writer) {
			fmt.Fprintf(w, "service\t%s\nnetwork\t%s\nanswered\t%d of %d\n\nENDPOINT\tID\tNODE\tADDRESS\tPORTS\tHEALTH\tANSWERED\n",
				s.Name, s.Network, s.Answered, len(s.Instances))
			for _, i := range s.Instances {
				health, answered := i.Health, "no"
				if health == "" {
					health = "no check"
				}
				if i.Answered {
					answered = "yes"
				}
				var ports []string
				for _, p := range i.Ports {
					ports = append(ports, fmt.Sprintf("%s=%d/%s", p.Name, p.Port, p.Proto))
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", i.Endpoint, i.ID, i.Node, i.Address, strings.Join(ports, " "), health, answered)
			}
		})
	}
	return cmd
}

// findService finds a service on a network, or on the only one that has it.
func (a *app) findService(cmd *cobra.Command, network, name string) (api.Service, error) {
	if network != "" {
		return a.client().Service(cmd.Context(), network, name)
	}
	all, err := a.client().Services(cmd.Context())
	if err != nil {
		return api.Service{}, err
	}
	var found []api.Service
	var on []string
	for _, s := range all {
		if s.Name == strings.ToLower(name) {
			found, on = append(found, s), append(on, s.Network)
		}
	}
	switch len(found) {
	case 0:
		return api.Service{}, fmt.Errorf("no service is named %q: see weft service ls", name)
	case 1:
		return found[0], nil
	}
	return api.Service{}, usagef("service %s is on several networks: give --network, one of %s", name, strings.Join(on, ", "))
}
