package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weft/pkg/netns"
)

// internalEnterCommand is the child that spawn starts. It says what goes wrong on the status pipe, not on stderr, for
// its parent is the one that talks to people.
func (a *app) internalEnterCommand() *cobra.Command {
	var path, resolv string
	var tied bool
	cmd := &cobra.Command{
		Use:     "internal-enter --netns PATH [--resolv FILE] -- CMD [ARG...]",
		Short:   "Used by run and exec: enter a namespace and execute a program",
		Example: "weft exec web-1 -- ip addr    # what to use instead",
		Hidden:  true,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, argv []string) error {
			return enter(path, resolv, argv, tied)
		},
	}
	cmd.Flags().StringVar(&path, "netns", "", "the namespace's `PATH`")
	cmd.Flags().StringVar(&resolv, "resolv", "", "`FILE` to show as /etc/resolv.conf")
	cmd.Flags().BoolVar(&tied, "tied", false, "die with the parent")
	return cmd
}

func enter(path, resolv string, argv []string, tied bool) error {
	for _, fd := range []int{statusFD, gateFD} {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
			return errors.New("internal-enter is a part of weft run and weft exec: use those")
		}
		unix.CloseOnExec(fd)
	}
	// The program inherits from the thread that executes it, and what spawn asked for holds for our first thread only:
	// a new thread starts with no such signal (copy_process in kernel/fork.c). Asking before the gate opens leaves no
	// gap: if the parent died earlier, the gate never opens.
	runtime.LockOSThread()
	if tied {
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return fmt.Errorf("tie program to weft: %w", err)
		}
	}
	gate := os.NewFile(gateFD, "gate")
	if n, _ := gate.Read(make([]byte, 1)); n != 1 {
		return exitError{code: exitFailed} // the parent is gone, or has changed its mind and says why itself
	}
	code := exitFailed
	_, err := os.Stat(path)
	if err == nil {
		err = netns.Enter(path, resolv, argv, os.Environ())
		code = enterCode(err)
	}
	status := os.NewFile(statusFD, "status")
	if _, werr := status.WriteString(formatEnterError(code, err)); werr != nil {
		return err
	}
	return exitError{code: code}
}

// enterCode is the shells' code for a program that could not be executed.
func enterCode(err error) int {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return exitNotFound
	case errors.Is(err, os.ErrPermission):
		return exitNotExecutable
	}
	return exitFailed
}
