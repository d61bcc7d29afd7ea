package main

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/pkg/api"
)

// On a terminal the program has the terminal, and a key that makes a signal makes one, not two.
func TestTerminal(t *testing.T) {
	h := newHost(t)
	if _, err := h.Attach(t.Context(), api.AttachSpec{Network: "net", Name: "web-1", NewNetNS: true}, peerNone); err != nil {
		t.Fatal(err)
	}
	master, slave := openPTY(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.command("exec", "web-1", "--", "env", countEnv+"=1", exe)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	t.Cleanup(func() { cmd.Process.Kill() })
	lines := bufio.NewScanner(master)
	expect := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("the terminal shows no %q: %v", want, lines.Err())
	}
	expect("ready")
	fmt.Fprint(master, "\x03")
	fmt.Fprint(master, "typed\n")
	expect("signals 1, typed")
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit %d, want 3", code)
	}
}

const countEnv = "WEFT_TEST_COUNT"

// countInterrupts is the program of TestTerminal: it says how many SIGINTs came before a line of input.
func countInterrupts() {
	c := make(chan os.Signal, 10)
	signal.Notify(c, unix.SIGINT)
	if !isTerminal(os.Stdin) || !isTerminal(os.Stdout) {
		fmt.Println("no terminal")
		os.Exit(1)
	}
	fmt.Println("ready")
	<-c
	time.Sleep(300 * time.Millisecond) // for a second one to come, if there is one
	var line string
	fmt.Scanln(&line)
	fmt.Printf("signals %d, %s\n", 1+len(c), line)
	os.Exit(3)
}

func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}
