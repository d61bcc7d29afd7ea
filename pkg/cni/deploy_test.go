package cni

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestExamples: the configurations in deploy/ and in the documents are what the plugin takes, and those in deploy/ what
// install writes.
func TestExamples(t *testing.T) {
	want, err := Conflist("my-app", "", Settings{Network: "my-app"})
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../deploy/*/*.conflist")
	if err != nil || len(files) < 3 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if string(data) != string(want) {
			t.Errorf("%s is not what `weft cni install my-app` writes:\n%s", f, want)
		}
	}
	doc, err := os.ReadFile("../../docs/cni.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```json\n(.*?)^```$").FindAllSubmatch(doc, -1)
	if len(blocks) == 0 {
		t.Fatal("docs/cni.md has no configuration")
	}
	for _, b := range blocks {
		var list struct{ Plugins []json.RawMessage }
		if err := json.Unmarshal(b[1], &list); err != nil {
			t.Fatal(err)
		}
		for _, p := range list.Plugins {
			if c, err := parseConfig(p); err != nil || c.Type != Type && c.Type != "portmap" {
				t.Errorf("%s: %v", p, err)
			}
		}
	}
}
