package overlay

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestRecordsDoc: the example of docs/records.md is a network record as this package has it, member by member.
func TestRecordsDoc(t *testing.T) {
	doc, err := os.ReadFile("../../docs/records.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "\n```value\n")
	value, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("docs/records.md has no example")
	}
	var n Network
	if err := json.Unmarshal([]byte(value), &n); err != nil {
		t.Fatal(err)
	}
	check(t, n.Validate(), "")
	again, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if body := strings.TrimSuffix(string(again), "\n}"); !strings.HasPrefix(value, body+",\n  \"signature\"") {
		t.Errorf("the example has other members than a network record:\n%s", body)
	}
}
