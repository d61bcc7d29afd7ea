package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSummarise(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, test := range []struct {
		name   string
		values []float64
		want   summary
	}{
		{"nothing", nil, summary{}},
		{"one value is all of it", []float64{7}, summary{1, 7, 7, 7, 7}},
		{"the median of an even number lies between", []float64{4, 1, 2, 3}, summary{4, 1, 2.5, 4, 4}},
		{"an outlier moves the maximum only", []float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 99}, summary{21, 1, 1, 1, 99}},
		{"unsorted", hundred, summary{100, 1, 50.5, 95, 100}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, summarise(test.values)); diff != "" {
				t.Errorf("summarise (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRatios(t *testing.T) {
	got := ratios([]float64{1, 2, 3, 4}, []float64{2, 0, 3})
	if diff := cmp.Diff([]float64{0.5, 1}, got); diff != "" {
		t.Errorf("rounds without a partner or a divisor are left out (-want +got):\n%s", diff)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 20: "20", 1048.4: "1048", 73.52: "73.5", 1.234: "1.23", 0.2261: "0.226", -0.5: "-0.500"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %s, want %s", v, got, want)
		}
	}
}

func TestTargets(t *testing.T) {
	var r report
	r.add("m", "good", "ms", 10, 20, 30).below(25)
	r.add("m", "late", "ms", 30).below(25)
	r.add("m", "unmeasured", "ms").below(25)
	r.add("m", "silent", "", 0).zero()
	r.add("m", "noisy", "", 0, 0, 1).zero()
	var got []bool
	for _, x := range r.Rows {
		got = append(got, x.Met)
	}
	if diff := cmp.Diff([]bool{true, false, false, true, false}, got); diff != "" {
		t.Errorf("targets met (-want +got):\n%s", diff)
	}
	var text, data bytes.Buffer
	if err := r.print(&text, "text"); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(text.String(), "MISSED"); n != 3 {
		t.Errorf("the table names %d missed targets, want 3:\n%s", n, &text)
	}
	if err := r.print(&data, "json"); err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(data.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.Rows, back.Rows); diff != "" {
		t.Errorf("rows read back (-want +got):\n%s", diff)
	}
}

const (
	someStat   = "42 (weft) a) b) S 1 42 42 0 -1 4194560 100 0 0 0 120 30 0 0 20 0 9 0 5000 0 0"
	someStatus = "Name:\tweft\nVmHWM:\t   28000 kB\nVmRSS:\t   25600 kB\nRssAnon:\t    9000 kB\nThreads:\t9\n"
	someStream = `{"start":{},"end":{"sum_sent":{"bits_per_second":2e9},"sum_received":{"bits_per_second":1.5e9}}}`
)

func TestParseProc(t *testing.T) {
	cpu, err := parseCPU([]byte(someStat))
	if err != nil || cpu != 1500*time.Millisecond {
		t.Errorf("CPU time is %v, %v; want 1.5 s", cpu, err)
	}
	if _, err := parseCPU([]byte("42 (weft) S 1")); err == nil {
		t.Error("a stat line that is too short was read")
	}
	want := map[string]float64{"VmHWM": 28000, "VmRSS": 25600, "RssAnon": 9000, "Threads": 9}
	if diff := cmp.Diff(want, parseStatus([]byte(someStatus))); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestParseStream(t *testing.T) {
	for _, test := range []struct {
		name, out string
		want      float64
		err       string
	}{
		{"a run", someStream, 1.5e9, ""},
		{"a client that failed", `{"start":{},"error":"unable to connect to server"}`, 0, "unable to connect to server"},
		{"a run in which nothing came through", `{"end":{}}`, 0, "nothing was received"},
		{"no output", "", 0, "read iperf3: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseStream([]byte(test.out))
			if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("parseStream = %v, %v; want %v, %q", got, err, test.want, test.err)
			}
		})
	}
}

func TestEcho(t *testing.T) {
	m := echo(513)
	if checksum(m) != 0 {
		t.Errorf("the checksum over a whole message is %#x, want 0 (RFC 1071)", checksum(m))
	}
	if _, ok := parseReply(m); ok {
		t.Error("our own request counts as a reply")
	}
	m[0] = 0
	if seq, ok := parseReply(m); !ok || seq != 513 {
		t.Errorf("the reply is read as %d, %v; want 513", seq, ok)
	}
	m[4]++
	if _, ok := parseReply(m); ok {
		t.Error("another prober's reply counts as ours")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{someStat, someStatus, someStream, string(echo(1)), "", ")", "1 (x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if cpu, err := parseCPU(data); err == nil && cpu < 0 {
			t.Errorf("negative CPU time %v", cpu)
		}
		parseStatus(data)
		if v, err := parseStream(data); err == nil && v <= 0 {
			t.Errorf("speed %v without an error", v)
		}
		parseReply(data)
	})
}
