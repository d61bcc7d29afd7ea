//go:build voidcheck

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"weft/pkg/ledger"
)

// Test builds are steered by files in data_dir: "void" names a check that this agent does without, "crash" a step at
// which it ends as by SIGKILL, once.

func voidChecks(dir string) {
	check, _ := os.ReadFile(filepath.Join(dir, "void"))
	ledger.Void(strings.TrimSpace(string(check)))
}

func (a *Agent) crash(step string) {
	path := filepath.Join(a.opt.Config.DataDir, "crash")
	want, err := os.ReadFile(path)
	if err != nil || strings.TrimSpace(string(want)) != step {
		return
	}
	_ = os.Remove(path)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
