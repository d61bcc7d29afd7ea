package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func (a *app) execCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "exec ENDPOINT -- CMD [ARG...]",
		Short: "Run a program in the namespace of an endpoint of this node",
		Long: "Run a program in the network namespace of an endpoint of this node, with the endpoint's\n" +
			"/etc/resolv.conf. Exits with the program's code; 128+n after signal n.",
		Args:              argsAndCommand("ENDPOINT"),
		Example:           "weft exec web-1 -- ip addr\nweft exec web-1 -- sh",
		ValidArgsFunction: a.complete(localEndpointNames),
		RunE: func(cmd *cobra.Command, got []string) error {
			return a.exec(cmd.Context(), got[0], got[1:])
		},
	}
}

func (a *app) exec(ctx context.Context, ref string, argv []string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("exec %s: entering a network namespace needs root: run weft as root", argv[0])
	}
	sigs := relaySignals()
	defer sigs.stop()
	e, err := a.client().Endpoint(ctx, ref)
	if err != nil {
		return err
	}
	if !e.Local {
		return fmt.Errorf("endpoint %s is on node %s: run weft exec there", ref, e.Node)
	}
	if e.NetNS == "" {
		return fmt.Errorf("endpoint %s has no namespace yet (state %s)", ref, e.State)
	}
	resolv, err := writeResolvConf(a.resolvDir, string(e.ID), e.DNS, e.Search)
	if err != nil {
		return err
	}
	defer removeResolvConf(resolv)
	child, err := a.spawn(program{netns: e.NetNS, resolv: resolv, argv: argv})
	if err != nil {
		return err
	}
	defer child.close()
	if err := child.release(); err != nil {
		return err
	}
	removeResolvConf(resolv)
	return child.wait(sigs)
}
