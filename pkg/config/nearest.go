package config

import "strings"

// distance is the Levenshtein distance of two strings, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// nearest returns the candidate closest to word, the first of equals, or "" when none is close: more than a third of the letters
// are wrong.
func nearest(word string, candidates []string) string {
	best, bestDistance := "", max(2, len(word)/3)+1
	if len(word) > maxWord {
		return ""
	}
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// maxWord bounds the work on words that are no misspelling of anything.
const maxWord = 100

// nearestKey returns the key that an unknown dotted key most likely means: the closest one, else the one whose last part has just
// this name, as log.level for level or consul.loglevel for none.
func nearestKey(unknown string) string {
	var names []string
	for _, s := range settings {
		names = append(names, s.name)
	}
	if found := nearest(unknown, names); found != "" {
		return found
	}
	leaf := lastPart(unknown)
	for _, name := range names {
		if l := lastPart(name); len(leaf) >= 4 && distance(strings.ToLower(leaf), l) <= 1 {
			return name
		}
	}
	return ""
}

func lastPart(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// orList prints "a, b or c".
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
