//go:build voidcheck

package agent

import (
	"os"
	"syscall"
)

// crash ends the process at once, as SIGKILL would, at the step that the environment variable WEFT_CRASH names, the
// first time it is reached: data_dir/crashed remembers that. Only test builds have it.
func (a *Agent) crash(step string) {
	mark := a.opt.Config.DataDir + "/crashed"
	if os.Getenv("WEFT_CRASH") != step {
		return
	}
	if _, err := os.Stat(mark); err == nil {
		return
	}
	_ = os.WriteFile(mark, []byte(step), 0o600)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
