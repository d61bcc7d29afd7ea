package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"weft/pkg/lab"
)

func newLabCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab COMMAND",
		Short: "Run several hosts on this machine, to try weft",
		Long: "Run several hosts on this machine, each in namespaces of its own with its own weft and Consul agent,\n" +
			"joined by a switch. Beside n1..nN there are the hosts consul (the server), out (the world outside)\n" +
			"and switch. Nothing leaves the lab, and lab down leaves nothing of it behind.",
		Example: `weft lab up
weft lab exec n1 -- weft status
weft lab exec n1 -- ping -c 1 n2
weft lab down`,
	}
	cmd.AddCommand(labUpCommand(), labExecCommand(), labStatusCommand(), labLogsCommand(), labDownCommand())
	for _, verb := range lab.Verbs() {
		cmd.AddCommand(labVerbCommand(verb))
	}
	return cmd
}

// labVerbCommand is a command that the lab starts itself.
func labVerbCommand(verb string) *cobra.Command {
	return &cobra.Command{
		Use: verb, Short: "Internal to weft lab", Example: "weft lab up", Hidden: true,
		DisableFlagParsing: true, Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, words []string) error {
			if code := lab.Main(append([]string{verb}, words...)); code != 0 {
				return exitError{code: code}
			}
			return nil
		},
	}
}

// labNameFlag adds --name to a command.
func labNameFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("name", lab.DefaultName, "the lab's `NAME`, when there are several")
}

func labUpCommand() *cobra.Command {
	var o lab.Options
	cmd := &cobra.Command{
		Use:   "up [flags]",
		Short: "Make a lab and wait until its mesh is up",
		Example: `weft lab up
weft lab up --nodes 5 --backend engine
weft lab up --name second --mtu 9000`,
	}
	name := labNameFlag(cmd)
	f := cmd.Flags()
	f.IntVar(&o.Nodes, "nodes", 3, "how many `HOSTS`, n1 and on")
	f.StringVar(&o.Backend, "backend", "auto", "WireGuard `BACKEND`: auto, kernel or engine")
	f.IntVar(&o.MTU, "mtu", 1500, "`BYTES` a frame may carry on the underlay")
	f.StringVar(&o.Consul, "consul", "", "`PATH` of the Consul binary (default: on PATH, or beside weft)")
	f.StringVar(&o.ConfigExtra, "config", "", "`YAML` laid over every agent's configuration")
	f.BoolVar(&o.NoAgents, "no-agents", false, "leave the weft agents to be started by hand")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.Nodes == 0 {
			return usagef("--nodes 0: want 1 to %d", lab.MaxNodes)
		}
		o.Name = *name
		o.Progress = func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
		begin := time.Now()
		l, err := lab.Up(cmd.Context(), o)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "lab %s is up after %.1f s; look around with: weft lab exec%s n1 -- weft status\n",
			l.Name(), time.Since(begin).Seconds(), labNameWords(l.Name()))
		return nil
	}
	return cmd
}

// labNameWords is what a user must add to a command to mean this lab.
func labNameWords(name string) string {
	if name == lab.DefaultName {
		return ""
	}
	return " --name " + name
}

func labExecCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec HOST -- CMD [ARG...]",
		Short: "Run a program in a host of the lab",
		Long: "Run a program in a host of the lab: plain weft and consul talk to that host's agents.\n" +
			"Exits with the program's code; 128+n after signal n.",
		Example: `weft lab exec n1 -- weft network ls
weft lab exec n2 -- bash
weft lab exec switch -- tcpdump -ni br0
weft lab exec consul -- consul members`,
		Args:              argsAndCommand("HOST"),
		ValidArgsFunction: completeLabHosts,
	}
	name := labNameFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, got []string) error {
		l, err := openLab(*name)
		if err != nil {
			return err
		}
		code, err := lab.Enter(l, got[0], got[1:])
		if code != 0 {
			return exitError{code: code, err: err}
		}
		return err
	}
	return cmd
}

func openLab(name string) (*lab.Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab needs root, for namespaces: run weft as root")
	}
	return lab.Open(name)
}

func labLogsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "logs HOST [agent|consul]",
		Short:   "Print the log of a host's weft or Consul agent",
		Example: "weft lab logs n1\nweft lab logs n1 consul\nweft lab logs consul",
		Args: func(_ *cobra.Command, got []string) error {
			if len(got) < 1 || len(got) > 2 {
				return usagef("want a host and, if you like, agent or consul")
			}
			return nil
		},
		ValidArgsFunction: completeLabHosts,
	}
	name := labNameFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		l, err := openLab(*name)
		if err != nil {
			return err
		}
		daemon := "agent"
		if got[0] == lab.Consul {
			daemon = "consul"
		}
		if len(got) > 1 {
			daemon = got[1]
		}
		path, err := l.LogPath(got[0], daemon)
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("host %s has no log of %s: it was never started there", got[0], daemon)
		}
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(cmd.OutOrStdout(), f)
		return err
	}
	return cmd
}

func labDownCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "down [flags]",
		Short:   "End everything of a lab, also of a half-made one, and remove it",
		Example: "weft lab down\nweft lab down --name second\nweft lab down --all",
	}
	name := labNameFlag(cmd)
	all := cmd.Flags().Bool("all", false, "take down every lab of this machine")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if os.Geteuid() != 0 {
			return errors.New("the lab needs root, for namespaces: run weft as root")
		}
		if *all {
			return downAllLabs(cmd.Context(), cmd.OutOrStdout())
		}
		if err := lab.Down(cmd.Context(), *name); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "lab %s is gone\n", *name)
		return nil
	}
	return cmd
}

func downAllLabs(ctx context.Context, w io.Writer) error {
	dirs, err := lab.Names()
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		if err := lab.Down(ctx, dir); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(w, "lab %s is gone\n", filepath.Base(dir))
	}
	return errors.Join(errs...)
}

// completeLabHosts offers the hosts of the lab for the first argument.
func completeLabHosts(cmd *cobra.Command, got []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if cmd.ArgsLenAtDash() >= 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	if len(got) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	name, err := cmd.Flags().GetString("name")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	l, err := lab.Open(name)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var hosts []cobra.Completion
	for _, h := range l.Hosts() {
		hosts = append(hosts, h.Name)
	}
	return hosts, cobra.ShellCompDirectiveNoFileComp
}
