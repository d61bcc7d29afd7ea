package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"weft/pkg/api"
	"weft/pkg/apiclient"
)

// undoTimeout bounds the detach after a program ended or did not start. Monotonic clock.
const undoTimeout = 30 * time.Second

// runOptions are the flags of run that do not go to the agent.
type runOptions struct {
	detach bool
	log    string
	output output
}

func (a *app) runCommand() *cobra.Command {
	var spec api.AttachSpec
	var opt runOptions
	cmd := &cobra.Command{
		Use:   "run NETWORK [flags] -- CMD [ARG...]",
		Short: "Run a program in a new network namespace on a network",
		Long: "Run a program in a new network namespace on a network; /etc/resolv.conf leads to the network's\n" +
			"names. The endpoint goes when the program ends. Exits with the program's code; 128+n after signal n.",
		Args: argsAndCommand("NETWORK"),
		Example: `weft run my-app -- ping web
weft run my-app --service api --health tcp:80 --detach --log /var/log/api.log -- ./api`,
		ValidArgsFunction: a.complete(networkNames),
	}
	endpointFlags(cmd, &spec)
	cmd.Flags().BoolVar(&opt.detach, "detach", false, "leave it running in the background and print the endpoint")
	cmd.Flags().StringVar(&opt.log, "log", "", "with --detach: append its output to `FILE`; default: nowhere")
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		if opt.log != "" && !opt.detach {
			return usagef("--log is for --detach: without it the output is here")
		}
		if cmd.Flags().Changed("output") && !opt.detach {
			return usagef("--output is for --detach: without it the output is the program's")
		}
		spec.Network, spec.NewNetNS, opt.output = got[0], true, *o
		return a.run(cmd.Context(), spec, opt, got[1:])
	}
	return cmd
}

// run attaches, starts the program, waits for it and detaches.
//
//	weft run              agent               child (weft internal-enter)
//	   | attach ----------> endpoint up
//	   | start ---------------------------------> waits at the gate
//	   | process (pid) ---> tied to the child
//	   | open the gate -------------------------> namespace, resolv.conf, exec CMD
//	   | wait; status pipe <--------------------- closed by exec, or says why not
//	   | detach ----------> endpoint gone
//
// The program runs only once the endpoint is up and tied to it, so from its first instruction on the endpoint's end is
// the agent's to see, whatever happens to weft run.
func (a *app) run(ctx context.Context, spec api.AttachSpec, opt runOptions, argv []string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("run %s: entering a network namespace needs root: run weft as root", argv[0])
	}
	var logFile *os.File
	if opt.log != "" {
		var err error
		if logFile, err = os.OpenFile(opt.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640); err != nil {
			return fmt.Errorf("open log: %w", err)
		}
		defer logFile.Close()
	}
	sigs := relaySignals()
	defer sigs.stop()

	c := a.client()
	att, err := c.Attach(ctx, spec)
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			a.undo(ctx, c, string(att.ID))
		}
	}()
	resolv, err := writeResolvConf(a.resolvDir, string(att.ID), att.DNS, att.Search)
	if err != nil {
		return err
	}
	defer removeResolvConf(resolv)
	child, err := a.spawn(program{netns: att.NetNS, resolv: resolv, argv: argv, detach: opt.detach, log: logFile})
	if err != nil {
		return err
	}
	defer child.close()
	if err := c.SetProcess(ctx, string(att.ID), api.Process{PID: child.pid()}); err != nil {
		child.abort()
		return fmt.Errorf("tie endpoint to its process: %w", err)
	}
	if err := child.release(); err != nil {
		return err
	}
	removeResolvConf(resolv)
	if opt.detach {
		keep = true
		return a.showAttachment(opt.output, att)
	}
	if att.Warning != "" {
		a.warn("%s", att.Warning)
	}
	return child.wait(sigs)
}

// undo detaches, also when the command was interrupted. The agent may have been faster: it watches the process too.
func (a *app) undo(ctx context.Context, c *apiclient.Client, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := c.Detach(ctx, id); err != nil && !errors.Is(err, os.ErrNotExist) {
		a.warn("endpoint %s is not detached by us, the agent does it when it sees that the process is gone: %v", id, err)
	}
}
