package lab

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// The verbs of `weft lab` that the lab starts itself, by re-executing the binary. Their command lines begin with
// "lab VERB --lab DIR", which is the mark by which Down finds what a lost state file does not name.
const (
	verbHost  = "host"  // --lab DIR --host NAME
	verbEnter = "enter" // --lab DIR [--daemon NAME] HOST -- CMD...
	verbStart = "start" // [--daemon BASE] -- CMD...
)

// Verbs lists them, for the command tree.
func Verbs() []string { return []string{verbHost, verbEnter, verbStart} }

// Exit codes of what could not be run, as shells have them.
const (
	exitFailed        = 125
	exitNotExecutable = 126
	exitNotFound      = 127
)

// Main runs one of Verbs, args[0], with its arguments, prints its error and returns the exit code.
func Main(args []string) int {
	code, err := run(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "weft lab:", err)
	}
	return code
}

// Enter runs argv in a host of a lab, with this process's standard streams, and returns its exit code: 128+n when
// signal n ended it, 125 to 127 when it could not be run. The calling process's signals are passed on.
func Enter(l *Lab, host string, argv []string) (int, error) {
	if len(argv) == 0 {
		return exitFailed, errors.New("run in host: no command")
	}
	return runEnter(l.dir, host, "", argv)
}

func run(args []string) (int, error) {
	usage := errors.New("run lab verb: wrong arguments; this is internal to weft lab")
	if len(args) == 0 {
		return exitFailed, usage
	}
	verb := args[0]
	words, argv := args[1:], []string(nil)
	if i := slices.Index(args, "--"); i > 0 {
		words, argv = args[1:i], args[i+1:]
	}
	dir, words := option(words, "--lab")
	host, words := option(words, "--host")
	daemon, words := option(words, "--daemon")
	switch {
	case verb == verbHost && dir != "" && host != "" && len(words) == 0:
		return exitOf(runHost(dir, host))
	case verb == verbEnter && dir != "" && len(words) == 1 && len(argv) > 0:
		return runEnter(dir, words[0], daemon, argv)
	case verb == verbStart && len(words) == 0 && len(argv) > 0:
		return runStart(daemon, argv)
	}
	return exitFailed, usage
}

// option takes "name value" from the front of words.
func option(words []string, name string) (value string, rest []string) {
	if len(words) < 2 || words[0] != name {
		return "", words
	}
	return words[1], words[2:]
}
