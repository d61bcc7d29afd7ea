package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestUpWithAgentsAndDown(t *testing.T) {
	consul := needLab(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	first, second := labDir(t, "b"), labDir(t, "c")
	a := testUp(t, Options{Dir: first, Nodes: 2, Consul: consul})
	b := testUp(t, Options{Name: filepath.Base(second), Nodes: 1, MTU: 9000, NoAgents: true, Consul: consul})
	if out, err := b.Output(t.Context(), "n1", "ping", "-c1", "-W2", "-s8000", "-Mdo", "out"); err != nil {
		t.Errorf("jumbo frame: %v\n%s", err, out)
	}
	if !a.Status(t.Context()).Ready {
		t.Error("status does not say ready")
	}
	visitor, _ := startIn(t, a, "echo READY; exec sleep 1000")
	before, beforeB := members(t, a), members(t, b)
	// By name and from the state file, as another process does it; the other lab is not touched.
	if err := Down(t.Context(), filepath.Base(first)); err != nil {
		t.Fatal(err)
	}
	if err := visitor.Wait(); visitor.ProcessState.ExitCode() != 128+9 {
		t.Errorf("a command in a host that was taken down: %v", err)
	}
	if out, err := b.Output(t.Context(), "n1", "ping", "-c1", "-W2", "out"); err != nil {
		t.Errorf("the other lab was hurt: %v\n%s", err, out)
	}
	if err := b.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.Down(t.Context()); err != nil {
		t.Errorf("down of a lab that is gone: %v", err)
	}
	if err := Down(t.Context(), filepath.Base(first)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("down by name of a lab that is gone: %v, want not exist", err)
	}
	assertGone(t, first, before)
	assertGone(t, second, beforeB)
}

func TestUpCancelled(t *testing.T) {
	consul := needLab(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for step := range 3 {
		t.Run(fmt.Sprintf("after step %d", step), func(t *testing.T) {
			dir := labDir(t, "d")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := 0
			if step == 0 {
				time.AfterFunc(10*time.Millisecond, cancel)
			}
			_, err := Up(ctx, Options{Dir: dir, Nodes: 2, NoAgents: true, Consul: consul, Progress: func(string) {
				if done++; done == step {
					cancel()
				}
			}})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("up: %v, want canceled", err)
			}
			assertGone(t, dir, nil)
		})
	}
}

func TestUpKilled(t *testing.T) {
	consul := needLab(t)
	t.Setenv("LAB_TEST_CONSUL", consul)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		lines int           // kill it after so many steps
		after time.Duration // and so long
		lose  bool          // and remove the state file
	}{
		"at once":              {0, 5 * time.Millisecond, false},
		"while hosts start":    {0, 20 * time.Millisecond, false},
		"after hosts":          {1, 0, false},
		"while consul starts":  {2, 20 * time.Millisecond, false},
		"state lost":           {3, 0, true},
		"state lost, no mount": {0, 15 * time.Millisecond, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := labDir(t, "e")
			cmd := exec.Command(self, "up", dir)
			stdout, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(stdout)
			for range tt.lines {
				if _, err := r.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(tt.after)
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if tt.lose {
				_ = os.Remove(filepath.Join(dir, stateFile))
			}
			if err := Down(t.Context(), dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			// A holder that was not recorded ends by itself.
			_ = poll(t.Context(), 5*time.Millisecond, func() (bool, error) {
				left, err := marked(dir, verbHost)
				return len(left) == 0, err
			})
			assertGone(t, dir, nil)
		})
	}
}

func TestUpFailure(t *testing.T) {
	needLab(t)
	dir := labDir(t, "f")
	falsePath, err := exec.LookPath("false")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Up(t.Context(), Options{Dir: dir, Nodes: 1, Consul: falsePath})
	if err == nil || !strings.Contains(err.Error(), "wait for consul of consul") {
		t.Errorf("up with a Consul that ends at once: %v", err)
	}
	assertGone(t, dir, nil)
}
