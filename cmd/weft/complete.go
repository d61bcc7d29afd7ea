package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"weft/pkg/apiclient"
)

// completeTimeout is how long a person may wait after pressing Tab.
const completeTimeout = time.Second

// names lists what a positional argument or flag may be; an agent that does not answer completes to nothing.
type names func(ctx context.Context, c *apiclient.Client) []cobra.Completion

// complete offers names for the first positional argument and files after a --.
func (a *app) complete(n names) cobra.CompletionFunc {
	return func(cmd *cobra.Command, got []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		// cobra appends a -- of its own, which ends the list.
		if dash := cmd.ArgsLenAtDash(); dash >= 0 && dash < len(got) {
			return nil, cobra.ShellCompDirectiveDefault
		}
		if len(got) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		parent := cmd.Context()
		if parent == nil {
			parent = context.Background()
		}
		ctx, cancel := context.WithTimeout(parent, completeTimeout)
		defer cancel()
		return n(ctx, a.client()), cobra.ShellCompDirectiveNoFileComp
	}
}

func networkNames(ctx context.Context, c *apiclient.Client) (out []cobra.Completion) {
	ns, _ := c.Networks(ctx) // an error completes to nothing
	for _, n := range ns {
		out = append(out, cobra.CompletionWithDesc(n.Name, networkKind(n)))
	}
	return out
}

func endpointNames(ctx context.Context, c *apiclient.Client) (out []cobra.Completion) {
	es, _ := c.Endpoints(ctx)
	for _, e := range es {
		out = append(out, cobra.CompletionWithDesc(e.Name, e.Network+" on "+e.Node))
	}
	return out
}

func localEndpointNames(ctx context.Context, c *apiclient.Client) (out []cobra.Completion) {
	es, _ := c.Endpoints(ctx)
	for _, e := range es {
		if e.Local {
			out = append(out, cobra.CompletionWithDesc(e.Name, e.Network+" "+e.Address.String()))
		}
	}
	return out
}

func nodeNames(ctx context.Context, c *apiclient.Client) (out []cobra.Completion) {
	ns, _ := c.Nodes(ctx)
	for _, n := range ns {
		out = append(out, cobra.CompletionWithDesc(n.Name, n.Datacenter))
	}
	return out
}
