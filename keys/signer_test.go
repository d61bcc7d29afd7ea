package keys

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSealedIdentity(t *testing.T) {
	id := testIdentity(t, 7)
	pass := []byte("correct horse battery")
	file, err := SealIdentity(id, "alice", pass)
	if err != nil {
		t.Fatal(err)
	}
	got, err := OpenIdentity(file, pass)
	if err != nil || !got.Equal(id) {
		t.Fatalf("it does not come back: %v", err)
	}
	if name, pub, err := SealedName(file); err != nil || name != "alice" || pub != id.Public() {
		t.Errorf("it names %s, %s, %v", name, pub, err)
	}
	again, err := SealIdentity(id, "alice", pass)
	if err != nil || bytes.Equal(file, again) {
		t.Errorf("two seals are the same, %v", err)
	}
	if _, err := OpenIdentity(file, []byte("wrong horse battery")); err == nil || strings.Contains(err.Error(), "horse") {
		t.Errorf("a wrong passphrase: %v", err)
	}
	for _, member := range []string{"name", "public", "salt", "nonce", "sealed", "time"} { // everything is authenticated
		var m map[string]any
		if err := json.Unmarshal(file, &m); err != nil {
			t.Fatal(err)
		}
		switch v := m[member].(type) {
		case string:
			m[member] = strings.Replace(v, v[:1], map[bool]string{true: "B", false: "A"}[v[:1] == "A"], 1)
		case float64:
			m[member] = v + 1
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenIdentity(b, pass); err == nil {
			t.Errorf("opened with another %s", member)
		}
	}
	if _, err := SealIdentity(id, "alice", []byte("short")); err == nil {
		t.Error("a short passphrase is taken")
	}
	for name, text := range map[string]string{
		"not JSON":        "x",
		"unknown member":  `{"format": "weft signer 1", "more": 1}`,
		"too much memory": strings.Replace(string(file), `"memory": 65536`, `"memory": 4294967295`, 1),
		"too much time":   strings.Replace(string(file), `"time": 3`, `"time": 4000000000`, 1),
		"no threads":      strings.Replace(string(file), `"threads": 4`, `"threads": 0`, 1),
		"another form":    strings.Replace(string(file), "weft signer 1", "weft signer 9", 1),
	} {
		if _, err := OpenIdentity([]byte(text), pass); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestRecoveryText(t *testing.T) {
	id := testIdentity(t, 9)
	text := id.RecoveryText()
	for _, s := range []string{text, strings.ToLower(text), strings.ReplaceAll(text, "-", " "), strings.ReplaceAll(text, "-", "\n")} {
		if got, err := ParseRecovery(s); err != nil || !got.Equal(id) {
			t.Errorf("%q: %v", s, err)
		}
	}
	wrong := strings.Replace(text, text[5:6], map[bool]string{true: "B", false: "A"}[text[5:6] == "A"], 1)
	for _, s := range []string{"", wrong, text[1:], text + "A"} {
		if _, err := ParseRecovery(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

func TestToken(t *testing.T) {
	tok := Token{Cluster: "5d41402abc4b", Key: testIdentity(t, 3)}
	got, err := ParseToken(tok.Reveal())
	if err != nil || got.Cluster != tok.Cluster || !got.Key.Equal(tok.Key) {
		t.Fatalf("it does not come back: %v", err)
	}
	for _, s := range []string{"", "weft-join-1.", tok.Reveal() + "x", tok.Reveal()[1:], strings.Replace(tok.Reveal(), "5d41", "5D41", 1), strings.Replace(tok.Reveal(), ".", "..", 1)} {
		if _, err := ParseToken(s); err == nil || s != "" && strings.Contains(err.Error(), s) {
			t.Errorf("%q: %v", s, err)
		}
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "token", tok)
	b, err := json.Marshal(tok)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{fmt.Sprint(tok), fmt.Sprintf("%+v %#v %s %q %x", tok, tok, tok, tok, tok), fmt.Errorf("use %v: %w", tok, fmt.Errorf("%s", tok.Key)).Error(), log.String(), string(b)} {
		for _, leak := range append(leakForms(tok.Key.Reveal()), tok.Reveal()) {
			if strings.Contains(out, leak) {
				t.Errorf("the token is in %q", out)
			}
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add(Token{Cluster: "5d41402abc4b", Key: testIdentity(f, 3)}.Reveal())
	f.Add("weft-join-1.a.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if tok, err := ParseToken(s); err == nil && tok.Reveal() != s {
			t.Errorf("%q has another spelling", s)
		}
		_, _ = ParseRecovery(s)
	})
}

func FuzzSealed(f *testing.F) {
	file, err := SealIdentity(testIdentity(f, 1), "n", []byte("correct horse battery"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Fuzz(func(t *testing.T, b []byte) { // without the KDF, which is slow by intent
		if s, err := parseSealed(b); err == nil && (s.Memory > maxSealMemory || s.Time > maxSealTime) {
			t.Errorf("a file may cost %d KiB and %d passes", s.Memory, s.Time)
		}
	})
}
