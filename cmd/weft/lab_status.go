package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"weft/pkg/lab"
)

func labStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status [flags]",
		Short:   "Show the hosts of the lab and how they are",
		Example: "weft lab status\nweft lab status -o json",
	}
	name := labNameFlag(cmd)
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		l, err := openLab(*name)
		if err != nil {
			return err
		}
		s := l.Status(cmd.Context())
		a := &app{stdout: cmd.OutOrStdout()}
		return a.show(*o, s, func(w io.Writer) { writeLabStatus(w, s) })
	}
	return cmd
}

func writeLabStatus(w io.Writer, s lab.Status) {
	fmt.Fprintf(w, "lab %s in %s, %d nodes, backend %s, MTU %d, since %s\n", s.Name, s.Dir, s.Nodes, s.Backend, s.MTU,
		s.Created.Local().Format(time.DateTime))
	if !s.Ready {
		fmt.Fprintf(w, "it is not complete: lab up is at work, or was killed; then weft lab down%s clears it\n", labNameWords(s.Name))
	}
	fmt.Fprintln(w, "\nHOST\tADDRESS\tPID\tCONSUL\tAGENT\tPEERS UP")
	for _, h := range s.Hosts {
		address, pid := "-", "down"
		if h.Address.IsValid() {
			address = h.Address.String()
		}
		if h.Up {
			pid = strconv.Itoa(h.PID)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", h.Name, address, pid, labDaemon(h.Consul), labDaemon(h.Agent), labPeers(h))
	}
}

func labDaemon(d *lab.DaemonStatus) string {
	switch {
	case d == nil:
		return "-"
	case d.OK:
		return "ok"
	case d.PID == 0:
		return "not running"
	}
	return "not ready"
}

func labPeers(h lab.HostStatus) string {
	if h.Weft == nil {
		return "-"
	}
	up := 0
	for _, p := range h.Weft.Peers {
		if p.Up {
			up++
		}
	}
	return fmt.Sprintf("%d of %d", up, len(h.Weft.Peers))
}
