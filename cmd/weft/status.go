package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"weft/pkg/api"
)

func (a *app) statusCommand() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "status [flags]",
		Short: "Show this node on one screen: mesh, networks, and anything wrong",
		Long: "Show this node on one screen: backend, Consul, peers, networks, and anything wrong with its cause.\n" +
			"Exits with 0 when the agent answers; with --check also 1 when something is wrong: Consul does not\n" +
			"answer, a network is in error, removal is frozen, or a problem is listed.",
		Example: `weft status
weft status --check >/dev/null || echo look at weft
weft status -o json | jq '.peers[] | select(.up | not)'`,
	}
	cmd.Flags().BoolVar(&check, "check", false, "exit with 1 when something is wrong")
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		st, err := a.client().Status(cmd.Context())
		if err != nil {
			return err
		}
		if err := a.show(*o, st, func(w io.Writer) { writeStatus(w, st, painter(a.stdout)) }); err != nil {
			return err
		}
		if n := wrong(st); check && n > 0 {
			return fmt.Errorf("%d things are wrong on %s", n, st.Node)
		}
		return nil
	}
	return cmd
}

// wrong counts what --check minds. Peers that are down count only when the agent lists them as a problem: a node that
// is being rebooted is not this node's fault.
func wrong(st api.Status) int {
	n := len(st.Problems)
	if !st.Consul.OK {
		n++
	}
	if st.Reconcile.Frozen != "" {
		n++
	}
	for _, net := range st.Networks {
		if net.State == "error" {
			n++
		}
	}
	return n
}
