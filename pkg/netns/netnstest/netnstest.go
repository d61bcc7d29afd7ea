package netnstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const inner = "WEFT_NETNSTEST_INNER"

// Main is the body of a TestMain: it runs m in a child process with fresh network and mount namespaces and an empty
// /run, checks for leaked goroutines, and exits. Without root it runs m as it is, and Need skips.
func Main(m *testing.M, opts ...goleak.Option) {
	switch {
	case os.Getenv(inner) != "":
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "netnstest:", err)
			os.Exit(1)
		}
		goleak.VerifyTestMain(m, opts...)
	case os.Geteuid() != 0 || fuzzing():
		goleak.VerifyTestMain(m, opts...)
	default:
		os.Exit(runChild())
	}
}

// Need skips t when the test binary has no namespaces of its own.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv(inner) == "" {
		t.Skip("needs root: makes network namespaces")
	}
}

// fuzzing: the fuzzing coordinator and its workers talk over inherited files, which a child would not have.
func fuzzing() bool {
	for _, a := range os.Args[1:] {
		if strings.HasPrefix(a, "-test.fuzz=") || strings.HasPrefix(a, "-test.fuzzworker") {
			return true
		}
	}
	return false
}

func runChild() int {
	// Pdeathsig belongs to the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inner+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "netnstest:", err)
		return 1
	}
	return 0
}

func prepare() error {
	if err := unix.Mount("", "/", "none", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	_ = unix.Unmount("/run/netns", unix.MNT_DETACH) // usually there is none
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount an empty /run: %w", err)
	}
	return nil
}
