// Command weft-cni is the CNI plugin: container runtimes execute it, with the command in the environment and the
// configuration on standard input. It only talks to the weft agent of its host.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/containernetworking/cni/pkg/skel"

	"weft/pkg/cni"
)

// version is set by the linker: -X main.version=1.2.3.
var version = "dev"

func main() {
	// An ADD that is told to end closes its connection in order, and the agent takes the endpoint back.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	skel.PluginMainFuncs(cni.Plugin{Out: os.Stdout}.Funcs(ctx), cni.Versions, "CNI plugin weft-cni "+version)
}
