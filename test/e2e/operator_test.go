package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/pkg/api"
	"weft/pkg/lab"
)

// operator makes a signer on this machine, where the lab's hosts see its file.
type operator struct {
	dir     string
	signers []string
}

func newOperator(t *testing.T, w string) *operator {
	t.Helper()
	o := &operator{dir: t.TempDir()}
	if err := os.WriteFile(o.dir+"/pass", []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := mustRun(t, w, "trust", "init", "--out", o.dir+"/signer.key", "--passphrase-file", o.dir+"/pass")
	for _, m := range regexp.MustCompile(`(?m)^ +- (\S+)$`).FindAllStringSubmatch(out, -1) {
		o.signers = append(o.signers, m[1])
	}
	if len(o.signers) != 2 {
		t.Fatalf("weft trust init prints\n%s", out)
	}
	return o
}

// args are the flags with which a command signs.
func (o *operator) args(args ...string) []string {
	return append(append([]string{"weft", "trust"}, args...), "--signer", o.dir+"/signer.key", "--passphrase-file", o.dir+"/pass")
}

func (o *operator) config() string {
	return "trust:\n  mode: locked\n  signers:\n    - " + strings.Join(o.signers, "\n    - ") + "\n"
}

// lockedWorld is a lab in locked mode in which all nodes are admitted; with more it has further configuration.
func lockedWorld(t *testing.T, o lab.Options) (*world, *operator) {
	t.Helper()
	needRoot(t)
	bin := o.Weft
	if bin == "" {
		bin = weftBinary
	}
	op := newOperator(t, bin)
	o.ConfigExtra, o.NoAgents = op.config()+o.ConfigExtra, true
	w := ownWorld(t, o)
	for _, n := range w.Nodes() {
		if err := w.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range w.Nodes() {
		w.eventually(20*time.Second, n+" admitted", func() error {
			_, err := w.try("n1", op.args("sign", n)...)
			return err
		})
	}
	w.meshed()
	return w, op
}

// meshed waits until all nodes are up for each other.
func (w *world) meshed() {
	w.t.Helper()
	for _, n := range w.Nodes() {
		w.eventually(30*time.Second, "mesh of "+n, func() error {
			out, err := w.try(n, "weft", "status", "-o", "json")
			if err != nil {
				return err
			}
			var s api.Status
			if err := json.Unmarshal([]byte(out), &s); err != nil {
				return err
			}
			up := 0
			for _, p := range s.Peers {
				if p.Up {
					up++
				}
			}
			if up != len(w.Nodes())-1 {
				return fmt.Errorf("%d peers up of %+v", up, s.Peers)
			}
			return nil
		})
	}
}

func mustRun(t *testing.T, bin string, args ...string) string {
	t.Helper()
	out, err := command(bin, args...)
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", bin, args, err, out)
	}
	return out
}
