package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"weft/pkg/api"
)

func (a *app) leaveCommand() *cobra.Command {
	var spec api.LeaveSpec
	cmd := &cobra.Command{
		Use:   "leave [flags]",
		Short: "Take this node out of the cluster and its data path down",
		Long: "Take this node out of the cluster: the agent signs a goodbye, frees its addresses, takes the data\n" +
			"path down and stops. Refused while endpoints exist here, unless forced.",
		Example: "weft leave\nweft leave --purge",
	}
	cmd.Flags().BoolVar(&spec.Purge, "purge", false, "also remove this node's keys and state")
	cmd.Flags().BoolVar(&spec.Force, "force", false, "also when endpoints exist here: they lose their network")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := a.client().Leave(cmd.Context(), spec); err != nil {
			return err
		}
		fmt.Fprintln(a.stdout, "left the cluster")
		return nil
	}
	return cmd
}

func (a *app) planCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "plan",
		Short:   "Show what the agent wants the kernel to hold, what it holds, and the difference",
		Example: "weft plan",
		Hidden:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := a.client().Plan(cmd.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(a.stdout, text)
			return err
		},
	}
}
