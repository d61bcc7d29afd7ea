package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"weft/pkg/api"
)

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "key COMMAND",
		Short:   "Show and change the WireGuard keys",
		Example: "weft key status\nweft key rotate",
	}
	cmd.AddCommand(a.keyStatusCommand(), a.keyRotateCommand())
	return cmd
}

func (a *app) keyStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show which generation of keys is in use",
		Example: "weft key status\nweft key status -o json",
	}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		k, err := a.client().Keys(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(*o, k, func(w io.Writer) { writeKeys(w, k) })
	}
	return cmd
}

func writeKeys(w io.Writer, k api.KeyStatus) {
	if k.Changing {
		fmt.Fprintf(w, "generation\t%d, moving from %d, %d peers moved\n", k.Generation, k.From, carriedBy(k))
	} else {
		fmt.Fprintf(w, "generation\t%d\n", k.Generation)
	}
	if !k.Since.IsZero() {
		fmt.Fprintf(w, "since\t%s\n", k.Since.Local().Format(time.RFC3339))
	}
	if !k.Next.IsZero() {
		fmt.Fprintf(w, "next change\tabout %s\n", k.Next.Local().Format(time.RFC3339))
	}
	if k.Problem != "" {
		fmt.Fprintf(w, "problem\t%s\n", k.Problem)
	}
}

func (a *app) keyRotateCommand() *cobra.Command {
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "rotate [flags]",
		Short: "Change the WireGuard keys of the whole mesh now, without losing a packet",
		Long: `Change the WireGuard keys now: this node begins, the others follow, each pair of nodes moves to the new keys once a
handshake with them is proved, and the old ones are removed when nobody uses them any more. The command waits for that.`,
		Example: "weft key rotate\nweft key rotate --wait 0s",
	}
	cmd.Flags().DurationVar(&limit, "wait", 2*time.Minute, "how long to wait for the end of the change; 0s does not")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		k, err := a.client().RotateKeys(cmd.Context())
		if err != nil {
			return err
		}
		if limit > 0 {
			if k, err = a.awaitKeys(cmd.Context(), k, limit); err != nil {
				return err
			}
		}
		return a.show(outputText, k, func(w io.Writer) { writeKeys(w, k) })
	}
	return cmd
}

// awaitKeys waits until the agent is done with a change of keys.
func (a *app) awaitKeys(ctx context.Context, k api.KeyStatus, limit time.Duration) (api.KeyStatus, error) {
	end := time.After(limit)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for k.Changing {
		select {
		case <-ctx.Done():
			return k, ctx.Err()
		case <-end:
			return k, fmt.Errorf("the change of keys goes on after %v: %s", limit, k.Problem)
		case <-tick.C:
		}
		var err error
		if k, err = a.client().Keys(ctx); err != nil {
			return k, err
		}
	}
	if k.Problem != "" {
		return k, fmt.Errorf("%s", k.Problem)
	}
	return k, nil
}
