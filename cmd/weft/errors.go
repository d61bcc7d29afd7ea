package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"weft/pkg/api"
)

// Exit codes. Beside these, run and exec give the code of the program they ran.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2

	// As shells use them: the program could not be executed, was not found, or ended by a signal (added to 128).
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128
)

// usageError is a command line that cannot be meant.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitError ends weft with a code; err may be nil, then nothing is printed.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}
func (e exitError) Unwrap() error { return e.err }

// report prints what went wrong, in one line, and returns the exit code.
func (a *app) report(cmd *cobra.Command, err error) int {
	if err == nil {
		return exitDone
	}
	var exit exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			fmt.Fprintf(a.stderr, "weft: %s\n", api.OneLine(exit.err.Error()))
		}
		return exit.code
	}
	var usage usageError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintf(a.stderr, "weft: %s; see \"%s --help\"\n", api.OneLine(err.Error()), cmd.CommandPath())
		return exitUsage
	case errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	}
	fmt.Fprintf(a.stderr, "weft: %s\n", api.OneLine(err.Error()))
	return exitFailed
}

// args accepts exactly the positional arguments that names lists.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, got []string) error {
		if len(got) < len(names) {
			return usagef("%s is missing", names[len(got)])
		}
		if len(got) > len(names) {
			return usagef("unexpected argument %q", got[len(names)])
		}
		return nil
	}
}

// argsAndCommand accepts one positional argument, then -- and a program with its arguments. Without the dashes the
// program's flags would be taken for ours.
func argsAndCommand(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, got []string) error {
		dash := cmd.ArgsLenAtDash()
		switch {
		case len(got) == 0 || dash == 0:
			return usagef("%s is missing", name)
		case dash < 0 && len(got) > 1:
			return dashesMissing(cmd, got)
		case dash > 1:
			return usagef("unexpected argument %q before --", got[1])
		case len(got) == 1:
			return usagef("the program to run is missing: %s %s -- CMD", cmd.CommandPath(), got[0])
		}
		return nil
	}
}

func dashesMissing(cmd *cobra.Command, got []string) error {
	return usagef("put -- before the program: %s %s -- %s ...", cmd.CommandPath(), got[0], got[1])
}

// unknownCommand is the error for a word that is no command of cmd, with what was probably meant.
func unknownCommand(cmd *cobra.Command, word string) error {
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		return usagef("unknown command %q, did you mean %q?", word, strings.Join(near, `" or "`))
	}
	return usagef("unknown command %q", word)
}
