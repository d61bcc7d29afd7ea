package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// relay passes signals that weft gets on to the program it runs. Make it before anything that must be undone, so that
// a signal in between does not end weft.
type relay struct{ c chan os.Signal }

// relaySignals starts to collect. What was ignored when weft started stays ignored, for the program too.
func relaySignals() *relay {
	r := &relay{c: make(chan os.Signal, 8)}
	for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2} {
		if !signal.Ignored(sig) {
			signal.Notify(r.c, sig)
		}
	}
	return r
}

func (r *relay) stop() { signal.Stop(r.c) }

// until relays to p until done says that it ended.
func (r *relay) until(done <-chan error, p *os.Process) error {
	for {
		select {
		case err := <-done:
			return err
		case sig := <-r.c:
			if (sig == unix.SIGINT || sig == unix.SIGQUIT) && inForeground() {
				continue // the terminal sent it to the program as well, which is in our process group
			}
			p.Signal(sig) //nolint:errcheck // it ended meanwhile
		}
	}
}

// inForeground tells whether the keyboard's signals go to our process group.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	pgrp, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}
