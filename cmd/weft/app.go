package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"weft/pkg/api"
	"weft/pkg/apiclient"
)

// app is one run of the command line: where it reads and writes, and what every command shares.
type app struct {
	stdin     io.Reader
	stdout    io.Writer
	stderr    io.Writer
	resolvDir string // for the resolv.conf of a started program, see spawn.go

	socket string        // --socket
	lines  *bufio.Reader // of stdin, once something was asked
}

// main runs one command line, without the program's name, and returns the exit code.
func (a *app) main(ctx context.Context, args []string) int {
	root := a.command()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return a.report(cmd, err)
}

// command builds the whole tree.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "weft [--socket PATH] COMMAND",
		Short:         "weft: overlay networks for plain Linux hosts, over Consul and WireGuard",
		Example:       "weft run my-app --service web -- python3 -m http.server",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       buildInfo().String(),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().StringVar(&a.socket, "socket", cmp.Or(os.Getenv("WEFT_SOCKET"), api.DefaultSocket),
		"the agent's `PATH`; environment WEFT_SOCKET")
	root.AddCommand(
		a.networkCommand(), a.runCommand(), a.execCommand(), a.attachCommand(), a.detachCommand(), a.drainCommand(),
		a.endpointCommand(), a.serviceCommand(), a.dnsCommand(),
		a.nodeCommand(), a.cniCommand(), a.netnsCommand(), a.keyCommand(), a.trustCommand(),
		a.statusCommand(), a.leaveCommand(), a.planCommand(), a.versionCommand(),
		a.internalEnterCommand(), engineCommand(), engineCallCommand(),
		newAgentCommand(), newConfigCommand(), newLabCommand(), completionCommand(),
	)
	root.SetHelpCommand(helpCommand())
	finish(root)
	return root
}

func (a *app) client() *apiclient.Client { return apiclient.New(a.socket) }

// output is the value of -o.
type output string

const (
	outputText output = "text"
	outputJSON output = "json"
)

func (o *output) String() string { return string(*o) }
func (o *output) Type() string   { return "FORMAT" }

// Set implements pflag.Value.
func (o *output) Set(s string) error {
	if s != string(outputText) && s != string(outputJSON) {
		return errors.New("want text or json")
	}
	*o = output(s)
	return nil
}

// outputFlag adds -o to a command that shows something.
func outputFlag(cmd *cobra.Command) *output {
	o := outputText
	cmd.Flags().VarP(&o, "output", "o", "text or json")
	must(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	return &o
}

// must is for what only a mistake in this package can make fail.
func must(err error) {
	if err != nil {
		panic("weft: " + err.Error())
	}
}

// show prints v as JSON, or as text writes it: cells separated by tabs are aligned.
func (a *app) show(o output, v any, text func(io.Writer)) error {
	if o == outputJSON {
		enc := json.NewEncoder(a.stdout)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	tw := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	text(tw)
	return tw.Flush()
}

// warn prints one line beside the command's result.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.stderr, "weft: warning: %s\n", api.OneLine(fmt.Sprintf(format, args...)))
}
