package main

import (
	"math"
	"slices"
	"strconv"
)

// summary is what is kept of a series. Its zero value is that of an empty one.
type summary struct {
	N                     int
	Min, Median, P95, Max float64
}

// summarise uses nearest ranks: every figure is one that was measured, except the median of an even number.
func summarise(values []float64) summary {
	n := len(values)
	if n == 0 {
		return summary{}
	}
	v := slices.Sorted(slices.Values(values))
	mid := v[n/2]
	if n%2 == 0 {
		mid = (v[n/2-1] + v[n/2]) / 2
	}
	return summary{N: n, Min: v[0], Median: mid, P95: v[int(math.Ceil(0.95*float64(n)))-1], Max: v[n-1]}
}

// ratios divides pairwise what was measured in the same round; rounds that one of the two lacks are left out.
func ratios(a, b []float64) []float64 {
	var out []float64
	for i := range min(len(a), len(b)) {
		if b[i] != 0 {
			out = append(out, a[i]/b[i])
		}
	}
	return out
}

func numbered(name string, i int) string { return name + "-" + strconv.Itoa(i) }
