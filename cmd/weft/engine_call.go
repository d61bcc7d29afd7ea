package main

import (
	"encoding/json"
	"os"

	"github.com/spf13/cobra"

	"weft/pkg/engine/control"
)

// engineCallCommand sends one request to a running engine and prints the answer; a profile is written as it is, for
// `go tool pprof`.
func engineCallCommand() *cobra.Command {
	device := "weftwg0"
	cmd := &cobra.Command{
		Use:     "engine-call REQUEST",
		Short:   "Send a running engine a request of its control protocol",
		Example: `weft engine-call '{"op":"state"}'` + "\n" + `weft engine-call '{"op":"profile","profile":{"name":"cpu","seconds":5}}' > cpu.pprof`,
		Args:    cobra.ExactArgs(1),
		Hidden:  true,
	}
	cmd.Flags().StringVar(&device, "device", device, "`NAME` of the engine's WireGuard device")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var req control.Request
		if err := json.Unmarshal([]byte(args[0]), &req); err != nil {
			return usagef("request %q: %v", args[0], err)
		}
		resp, err := control.NewClient(device).Do(req)
		if err != nil {
			return err
		}
		if resp.Profile != nil {
			_, err := os.Stdout.Write(resp.Profile)
			return err
		}
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		return enc.Encode(resp)
	}
	return cmd
}
