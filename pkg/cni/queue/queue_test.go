package queue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/pkg/overlay"
)

func newQueue(t *testing.T) Queue {
	t.Helper()
	return Of(filepath.Join(t.TempDir(), "weft.sock"))
}

// drained is what a drain gives, in order; ids in keep fail.
func drained(t *testing.T, q Queue, keep ...overlay.EndpointID) (got []overlay.EndpointID, n int, err error) {
	t.Helper()
	n, err = q.Drain(func(id overlay.EndpointID) error {
		got = append(got, id)
		if slices.Contains(keep, id) {
			return errors.New("not now")
		}
		return nil
	})
	return got, n, err
}

func TestDrain(t *testing.T) {
	q := newQueue(t)
	if got, n, err := drained(t, q); got != nil || n != 0 || err != nil {
		t.Errorf("an absent queue: %v, %d, %v", got, n, err)
	}
	for _, id := range []overlay.EndpointID{"c3:eth0", "c1:eth0", "c2:eth0", "c1:eth0"} {
		if err := q.Add(id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // the order is that of the clock
	}
	if !q.Has("c1:eth0") || q.Has("c4:eth0") {
		t.Error("Has is wrong")
	}
	got, n, err := drained(t, q, "c2:eth0")
	if !slices.Equal(got, []overlay.EndpointID{"c3:eth0", "c2:eth0", "c1:eth0"}) || n != 2 || err == nil || !strings.Contains(err.Error(), "c2:eth0: not now") {
		t.Errorf("drain: %v, %d, %v", got, n, err)
	}
	n, err = q.Drain(func(overlay.EndpointID) error { return fmt.Errorf("gone: %w", os.ErrNotExist) })
	if n != 1 || err != nil {
		t.Errorf("what is gone is done: %d, %v", n, err)
	}
	if files, err := os.ReadDir(q.Dir()); err != nil || len(files) != 0 {
		t.Errorf("left: %v, %v", files, err)
	}
}

func TestRubbishIsDropped(t *testing.T) {
	q := newQueue(t)
	if err := q.Add("c1:eth0"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a.json": "{", "b.json": `{"id":"c2:eth0"}`, "c.json": `{"id":"../x"}`, ".new-1": "{", "noise": ""} {
		path := filepath.Join(q.Dir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	got, n, err := drained(t, q)
	if !slices.Equal(got, []overlay.EndpointID{"c1:eth0"}) || n != 1 || err == nil {
		t.Errorf("drain: %v, %d, %v", got, n, err)
	}
	if got, _, err := drained(t, q); got != nil || err != nil {
		t.Errorf("drain again: %v, %v", got, err)
	}
}

// TestForeignDirectory: who can write the directory could detach what he likes.
func TestForeignDirectory(t *testing.T) {
	q := newQueue(t)
	if err := os.Mkdir(q.Dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(q.Dir(), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := q.Add("c1:eth0"); err == nil || !strings.Contains(err.Error(), "nobody else can write") {
		t.Errorf("Add: %v", err)
	}
	if got, n, err := drained(t, q); got != nil || n != 0 || err == nil {
		t.Errorf("Drain: %v, %d, %v", got, n, err)
	}
}

// TestTurns: drains from several sides never do one entry twice at a time.
func TestTurns(t *testing.T) {
	q := newQueue(t)
	const count = 50
	for i := range count {
		if err := q.Add(overlay.EndpointID(fmt.Sprintf("c%d:eth0", i))); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	seen := map[overlay.EndpointID]int{}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if _, err := q.Drain(func(id overlay.EndpointID) error {
				mu.Lock()
				defer mu.Unlock()
				seen[id]++
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if len(seen) != count {
		t.Errorf("%d of %d", len(seen), count)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s: %d times", id, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"id":"c1:eth0","queued":"2026-01-02T03:04:05Z"}`, `{"id":""}`, `{"id":7}`, `[]`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if e, err := parse(data); err == nil && e.ID.Validate() != nil {
			t.Errorf("%q gives id %q", data, e.ID)
		}
	})
}
