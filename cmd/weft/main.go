package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker: -X main.version=1.2.3.
var version = "dev"

func main() {
	ctx, stop := context.WithCancel(context.Background())
	// A signal that was ignored when we started, as SIGINT under nohup or a shell's &, stays ignored.
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if !signal.Ignored(sig) {
			ctx, stop = signal.NotifyContext(ctx, sig)
		}
	}
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, resolvDir: resolvDir}
	code := a.main(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
