package reconcile

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/pkg/kstate"
)

var update = flag.Bool("update", false, "write the scripts' expected output")

// TestScripts runs testdata/*.txt against a loop over a kernel in memory. A script is lines of
//
//	want NETWORK...       what is wanted from now on, see world
//	fault TEXT            operations with TEXT in them fail from now on
//	blind | see           the kernel cannot be read, can be read again
//	heal                  no faults any more
//	lose TEXT             items with TEXT in their golden text vanish behind the loop's back
//	run DURATION          time passes
//
// After each of them come, behind "> ", the operations that the loop tried since, each once, with their errors; after
// run also the last pass's failures that were not tried, and whether all is as wanted.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := script(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(text), got); diff != "" && !*update {
				t.Errorf("run with -update and read the difference (-want +got):\n%s", diff)
			}
		})
	}
}

// script runs a script and returns it with what came out in place of what it expects.
func script(t *testing.T, text string) string {
	k, want := newKernel(), wanting(nil)
	var out strings.Builder
	bubble(t, k, want, nil, func(t *testing.T, l *Loop) {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "> ") {
				continue
			}
			out.WriteString(line)
			verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch verb {
			case "", "#":
				continue
			case "want":
				s := world(strings.Fields(rest)...)
				for id := range pruned(want.Load()) {
					if _, ok := s.Prune[id]; !ok {
						s.Prune[id] = true
					}
				}
				want.Store(s)
			case "fault":
				k.do(func() { k.faults = append(k.faults, rest) })
			case "heal":
				k.do(func() { k.faults = nil })
			case "blind":
				k.do(func() { k.blind = os.ErrDeadlineExceeded })
			case "see":
				k.do(func() { k.blind = nil })
			case "lose":
				lose(k, rest)
			case "run":
				d, err := time.ParseDuration(rest)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(d)
				synctest.Wait()
				out.WriteString(report(k, l))
			default:
				t.Fatalf("no verb %q", verb)
			}
		}
	})
	return out.String()
}

func pruned(s *kstate.State) map[string]bool {
	if s == nil {
		return nil
	}
	return s.Prune
}

func lose(k *kernel, text string) {
	k.do(func() {
		for key, e := range k.items {
			if !strings.Contains(key.NS+" "+e.Item.String(), text) {
				continue
			}
			delete(k.items, key)
			for other, o := range k.items {
				if goesWith(o.Item, e.Item) {
					delete(k.items, other)
				}
			}
		}
	})
}

func report(k *kernel, l *Loop) string {
	var b strings.Builder
	for line := range strings.Lines(k.take()) {
		b.WriteString("> " + line)
	}
	last := l.Status().Last
	var skipped []string
	for _, f := range last.Failed {
		if f.Skipped {
			line, _, _ := strings.Cut(f.Op.String(), "\n")
			skipped = append(skipped, "> not tried: "+line+"\n")
		}
	}
	slices.Sort(skipped)
	b.WriteString(strings.Join(skipped, ""))
	switch {
	case last.Err != nil:
		b.WriteString("> " + last.Err.Error() + "\n")
	case last.Want == nil:
		b.WriteString("> nothing can be decided yet\n")
	case len(last.Failed) == 0 && last.Applied == 0:
		b.WriteString("> all is as wanted\n")
	}
	return b.String()
}
