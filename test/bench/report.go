package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// report is what a run found.
type report struct {
	Date    time.Time `json:"date"`
	CPUs    int       `json:"cpus"`
	Kernel  string    `json:"kernel"`
	Load    string    `json:"load"` // averages of 1, 5 and 15 minutes at the start
	Weft    string    `json:"weft"`
	Backend string    `json:"backend"` // of encrypted networks, as weft status says
	Rows    []row     `json:"rows"`
	Skipped []string  `json:"skipped"`
}

// row is one figure: a median with its spread, or with N 1 a single reading.
type row struct {
	Measure string  `json:"measure"`
	Case    string  `json:"case"`
	Unit    string  `json:"unit"`
	N       int     `json:"n"`
	Median  float64 `json:"median"`
	Min     float64 `json:"min"`
	P95     float64 `json:"p95"`
	Max     float64 `json:"max"`
	// Target is empty where there is none; Met says whether the median meets it.
	Target string `json:"target,omitempty"`
	Met    bool   `json:"met,omitempty"`
}

// machine notes what the figures depend on, without naming the machine.
func (r *report) machine(weft string) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("ask for the kernel: %w", err)
	}
	version, err := exec.Command(weft, "version").Output()
	if err != nil {
		return fmt.Errorf("run %s version: %w", weft, err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	if parts := strings.SplitN(release, ".", 3); len(parts) > 2 {
		release = parts[0] + "." + parts[1] // the rest may name who built it
	}
	r.Date, r.CPUs, r.Kernel, r.Weft = time.Now().UTC(), runtime.NumCPU(), release, strings.TrimSpace(string(version))
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return fmt.Errorf("read load: %w", err)
	}
	if f := strings.Fields(string(load)); len(f) > 2 {
		r.Load = strings.Join(f[:3], " ")
	}
	r.Skipped = []string{}
	return nil
}

func (r *report) add(measure, name, unit string, values ...float64) *row {
	s := summarise(values)
	r.Rows = append(r.Rows, row{Measure: measure, Case: name, Unit: unit, N: s.N, Median: s.Median, Min: s.Min, P95: s.P95, Max: s.Max})
	return &r.Rows[len(r.Rows)-1]
}

// below sets a target for the median.
func (r *row) below(limit float64) {
	r.Target, r.Met = "< "+number(limit), r.N > 0 && r.Median < limit
}

// zero sets the target that no value is above zero.
func (r *row) zero() { r.Target, r.Met = "0", r.N > 0 && r.Max == 0 }

func (r *report) skip(format string, args ...any) {
	r.Skipped = append(r.Skipped, fmt.Sprintf(format, args...))
}

func (r *report) print(w io.Writer, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(r)
	}
	fmt.Fprintf(w, "\n%s, %d CPUs, kernel %s, load before %s\n%s; WireGuard: %s\n\n", r.Date.Format("2006-01-02 15:04 UTC"), r.CPUs, r.Kernel, r.Load, r.Weft, r.Backend)
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "MEASURE\tCASE\tMEDIAN\tUNIT\tMIN\tP95\tMAX\tN\tTARGET")
	for _, x := range r.Rows {
		fmt.Fprintln(tw, strings.Join(x.cells(), "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nskipped: %d\n", len(r.Skipped))
	for _, s := range r.Skipped {
		fmt.Fprintln(w, "  "+s)
	}
	return nil
}

func (r row) cells() []string {
	spread := []string{"", "", ""}
	if r.N > 1 {
		spread = []string{number(r.Min), number(r.P95), number(r.Max)}
	}
	target := r.Target
	switch {
	case target == "":
	case r.Met:
		target += " met"
	default:
		target += " MISSED"
	}
	cells := append([]string{r.Measure, r.Case, number(r.Median), r.Unit}, spread...)
	return append(cells, strconv.Itoa(r.N), target)
}

// number prints three significant digits, and whole numbers whole.
func number(v float64) string {
	a := math.Abs(v)
	switch {
	case v == math.Trunc(v), a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}
