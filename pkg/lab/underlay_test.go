package lab

import (
	"bytes"
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func testPartition(t *testing.T, l *Lab) {
	reaches := func(a, b string) bool {
		_, err := l.Output(t.Context(), a, "ping", "-c1", "-W1", b)
		return err == nil
	}
	for range 2 { // again: it may be repeated
		if err := l.Partition("n1", "n2"); err != nil {
			t.Fatal(err)
		}
	}
	if reaches("n1", "n2") || reaches("n2", "n1") {
		t.Error("partitioned hosts reach each other")
	}
	if !reaches("n1", "out") || !reaches("n2", "out") {
		t.Error("a partition of two hosts cuts a third off")
	}
	for range 2 {
		if err := l.Heal("n2", "n1"); err != nil {
			t.Fatal(err)
		}
	}
	if !reaches("n1", "n2") || !reaches("n2", "n1") {
		t.Error("healed hosts do not reach each other")
	}
	if err := l.Partition("n1", Switch); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("partition from the switch: %v, want invalid", err)
	}
}

func testCapture(t *testing.T, l *Lab) {
	var mu sync.Mutex
	seen := map[string]int{}
	marker := []byte("the marker of this test")
	c, err := l.Capture(t.Context(), func(f Frame) {
		mu.Lock()
		defer mu.Unlock()
		if bytes.Contains(f.Data, marker) {
			seen[f.From]++
		}
		if age := time.Since(f.Time); age < 0 || age > time.Minute {
			t.Errorf("frame of %v ago", age)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	n2, err := l.Host("n2")
	if err != nil {
		t.Fatal(err)
	}
	const count = 200
	frame := ethernet(t, n2.MAC, "02:00:00:00:00:99", marker)
	for range count {
		if err := l.Inject("out", frame); err != nil {
			t.Fatal(err)
		}
	}
	frames, err := c.Stop()
	if err != nil || seen["out"] != count || len(seen) != 1 || frames < count {
		t.Errorf("captured %d frames, with the marker %v, %v; want %d of out", frames, seen, err, count)
	}
	if again, err := c.Stop(); again != frames || err != nil {
		t.Errorf("second stop: %d, %v, want %d", again, err, frames)
	}
}

// ethernet is a frame of the local experimental type (IEEE 802, 88b5).
func ethernet(t *testing.T, dst, src string, payload []byte) []byte {
	var frame []byte
	for _, mac := range []string{dst, src} {
		for _, digits := range strings.Split(mac, ":") {
			b, err := strconv.ParseUint(digits, 16, 8)
			if err != nil {
				t.Fatal(err)
			}
			frame = append(frame, byte(b))
		}
	}
	frame = append(append(frame, 0x88, 0xb5), payload...)
	return append(frame, make([]byte, max(0, 60-len(frame)))...)
}

func testDial(t *testing.T, l *Lab) {
	listener, err := l.Listen(t.Context(), "out", "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := l.Dial(t.Context(), "n1", "tcp", "198.18.0.250:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if from := accepted.RemoteAddr().String(); !strings.HasPrefix(from, "198.18.0.1:") {
		t.Errorf("connection from %s, want n1", from)
	}
}
