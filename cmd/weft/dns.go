package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func (a *app) dnsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "dns COMMAND",
		Short:   "Ask the name server, and why it answers so",
		Example: "weft dns query web --network my-app\nweft dns query web.my-app.weft",
	}
	cmd.AddCommand(a.dnsQueryCommand())
	return cmd
}

func (a *app) dnsQueryCommand() *cobra.Command {
	var network, qtype string
	cmd := &cobra.Command{
		Use:   "query NAME [flags]",
		Short: "Show the answer to a name, and why it is that",
		Long: "Show what this node's name server answers: which endpoints stand behind a name, which are left\n" +
			"out and why, and who else is asked. Without --network it is asked as by the host itself.",
		Args:    args("NAME"),
		Example: "weft dns query web --network my-app\nweft dns query _http._tcp.web.my-app.weft --type SRV\nweft dns query 10.0.0.7 --type PTR -o json",
	}
	cmd.Flags().StringVar(&network, "network", "", "ask as an endpoint of the network `NAME`; default: as the host")
	cmd.Flags().StringVar(&qtype, "type", "A", "record `TYPE`, as A, AAAA, SRV or PTR")
	must(cmd.RegisterFlagCompletionFunc("network", a.complete(networkNames)))
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		x, err := a.client().QueryName(cmd.Context(), network, got[0], qtype)
		if err != nil {
			return err
		}
		return a.show(*o, x, func(w io.Writer) {
			fmt.Fprintf(w, "question\t%s %s\nanswer\t%s, from %s\n", x.Question, x.Type, x.Rcode, x.Source)
			for _, section := range [][]string{x.Answer, x.Authority, x.Additional} {
				for _, rr := range section {
					fmt.Fprintf(w, "\t%s\n", rr)
				}
			}
			for i, why := range x.Why {
				if i == 0 {
					fmt.Fprintf(w, "why\t%s\n", why)
					continue
				}
				fmt.Fprintf(w, "\t%s\n", why)
			}
			if len(x.Instances) == 0 {
				return
			}
			fmt.Fprintf(w, "\nENDPOINT\tNETWORK\tNODE\tADDRESS\tHEALTH\tANSWERED\n")
			for _, i := range x.Instances {
				answered := "no"
				if i.Answered {
					answered = "yes"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", i.Endpoint, i.Network, i.Node, i.Address, i.Health, answered)
			}
		})
	}
	return cmd
}
