// Command weft-demo shows weft to a newcomer: it makes a lab of three hosts, runs two services over them, and looks at
// the wire meanwhile.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: weft-demo up
       weft-demo api | web | get MARKER URL...     run by "up" inside the lab`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	switch args[0] {
	case "up":
		return up(ctx)
	case "api":
		return serveAPI(ctx)
	case "web":
		return serveWeb(ctx)
	case "get":
		if len(args) > 2 {
			return get(ctx, args[1], args[2:])
		}
	}
	return errors.New(usage)
}
