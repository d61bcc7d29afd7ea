package keys

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type record struct {
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels,omitempty"`
	List     []int             `json:"list"`
	Revision uint64            `json:"revision"`
	Note     string            `json:"note,omitempty"`
}

var testEnvelope = Envelope{Kind: "network", Cluster: "c1", Path: "networks/blue"}

func testIdentity(t testing.TB, first byte) Identity {
	t.Helper()
	id, err := IdentityFrom([Size]byte{first, 1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func mustSeal(t testing.TB, e Envelope, id Identity, rec any) []byte {
	t.Helper()
	value, err := e.Seal(id, rec)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// forge lays a value out as Seal does around any prefix, with a valid signature under revision 1.
func forge(t testing.TB, e Envelope, id Identity, prefix string) []byte {
	t.Helper()
	sig := ed25519.Sign(id.private(), e.message(1, []byte(prefix)))
	return []byte(prefix + tailHead + base64.StdEncoding.EncodeToString(sig) + tailEnd)
}

func TestSealLayout(t *testing.T) {
	id := testIdentity(t, 1)
	value := mustSeal(t, testEnvelope, id, record{
		Name: "a<b>&c", Labels: map[string]string{"k": "v"}, List: []int{1}, Revision: 18446744073709551615, Note: "é"})
	head, tail, ok := strings.Cut(string(value), ",\n  \"signature\": \"")
	want := `{
  "name": "a<b>&c",
  "labels": {
    "k": "v"
  },
  "list": [
    1
  ],
  "revision": 18446744073709551615,
  "note": "é"`
	if diff := cmp.Diff(want, head); !ok || diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(tail) != 88+len("\"\n}\n") || !strings.HasSuffix(tail, "==\"\n}\n") {
		t.Errorf("tail is %q", tail)
	}
	s, err := testEnvelope.Open(value)
	if err != nil {
		t.Fatal(err)
	}
	if s.Revision != 18446744073709551615 || !bytes.Equal(s.Body, value) {
		t.Errorf("revision %d, body %s", s.Revision, s.Body)
	}
	if err := s.Verify(id.Public()); err != nil {
		t.Error(err)
	}
	var got record
	if err := json.Unmarshal(s.Body, &got); err != nil || got.Name != "a<b>&c" {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

func TestSealRefuses(t *testing.T) {
	id := testIdentity(t, 1)
	good := record{Revision: 1}
	with := func(f func(*Envelope)) Envelope {
		e := testEnvelope
		f(&e)
		return e
	}
	for name, tc := range map[string]struct {
		e    Envelope
		id   Identity
		rec  any
		want string
	}{
		"no identity":          {testEnvelope, Identity{}, good, "no identity"},
		"no kind":              {with(func(e *Envelope) { e.Kind = "" }), id, good, "kind"},
		"kind with NUL":        {with(func(e *Envelope) { e.Kind = "a\x00b" }), id, good, "kind"},
		"no cluster":           {with(func(e *Envelope) { e.Cluster = "" }), id, good, "cluster"},
		"cluster with NUL":     {with(func(e *Envelope) { e.Cluster = "a\x00" }), id, good, "cluster"},
		"no path":              {with(func(e *Envelope) { e.Path = "" }), id, good, "path"},
		"absolute path":        {with(func(e *Envelope) { e.Path = "/a" }), id, good, "path"},
		"path with NUL":        {with(func(e *Envelope) { e.Path = "a\x00b" }), id, good, "path"},
		"array":                {testEnvelope, id, []int{1}, "object"},
		"null":                 {testEnvelope, id, nil, "object"},
		"number":               {testEnvelope, id, 7, "object"},
		"empty object":         {testEnvelope, id, struct{}{}, "object"},
		"no revision":          {testEnvelope, id, map[string]int{"a": 1}, "revision"},
		"revision zero":        {testEnvelope, id, record{}, "revision"},
		"revision as text":     {testEnvelope, id, map[string]any{"revision": "1"}, "revision"},
		"own signature":        {testEnvelope, id, map[string]any{"revision": 1, "signature": "x"}, "signature"},
		"own early signature":  {testEnvelope, id, json.RawMessage(`{"signature": "x", "revision": 1}`), "signature"},
		"own odd signature":    {testEnvelope, id, map[string]any{"revision": 1, "SIGNATURE": "x"}, "signature"},
		"duplicate underneath": {testEnvelope, id, json.RawMessage(`{"a": [{"b": 1, "b": 2}], "revision": 1}`), "twice"},
		"does not marshal":     {testEnvelope, id, map[string]any{"revision": 1, "f": func() {}}, "encode"},
		"too large":            {testEnvelope, id, record{Revision: 1, Note: strings.Repeat("x", MaxValue-100)}, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := tc.e.Seal(tc.id, tc.rec); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	id := testIdentity(t, 1)
	good := string(mustSeal(t, testEnvelope, id, record{Name: "n", Revision: 1}))
	swap := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the record", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	big := `{"a": "` + strings.Repeat("x", MaxValue) + `", "revision": 1`
	deep := `{"a": ` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `, "revision": 1`
	for name, tc := range map[string]struct{ value, want string }{
		"empty":                     {"", "object"},
		"null":                      {"null", "object"},
		"array":                     {"[" + good + "]", "object"},
		"leading blank":             {" " + good, "object"},
		"byte order mark":           {"\ufeff" + good, "object"},
		"trailing object":           {good + "{}", "not JSON"},
		"trailing line":             {good + "\n", "laid out"},
		"no last line break":        {strings.TrimSuffix(good, "\n"), "laid out"},
		"trailing NUL":              {good + "\x00", "not JSON"},
		"truncated":                 {good[:len(good)-10], "not JSON"},
		"not UTF-8":                 {string(forge(t, testEnvelope, id, "{\"a\": \"\xff\", \"revision\": 1")), "UTF-8"},
		"too large":                 {string(forge(t, testEnvelope, id, big)), "more than"},
		"too deep":                  {string(forge(t, testEnvelope, id, deep)), "deep"},
		"signature not last":        {swap("\"\n}\n", "\",\n  \"z\": 1\n}\n"), "last"},
		"no signature":              {"{\n  \"revision\": 1\n}\n", "last"},
		"only a signature":          {"{\"signature\": \"\"}", "revision"},
		"signature nested":          {`{"revision": 1, "a": {"signature": "x"}}`, "last"},
		"signature in another case": {swap(`"signature"`, `"Signature"`), "last"},
		"signature escaped":         {swap(`"signature"`, `"s\u0069gnature"`), "laid out"},
		"other white space":         {swap(",\n  \"signature\"", ", \"signature\""), "laid out"},
		"other blanks before":       {swap(",\n  \"signature\"", ",  \n\"signature\""), "laid out"},
		"other blanks after":        {swap("\"\n}\n", "\" }\n"), "laid out"},
		"signature is null":         {`{"revision": 1,` + "\n" + `  "signature": null` + "\n}\n", "laid out"},
		"signature too short":       {swap("==\"\n", "\"\n"), "laid out"},
		"signature not base64":      {swap("==\"\n", "!!\"\n"), "base64"},
		"duplicate":                 {string(forge(t, testEnvelope, id, `{"a": 1, "a": 2, "revision": 1`)), "twice"},
		"duplicate revision":        {string(forge(t, testEnvelope, id, `{"revision": 1, "revision": 1`)), "twice"},
		"duplicate signature":       {string(forge(t, testEnvelope, id, `{"revision": 1, "signature": "x"`)), "twice"},
		"duplicate by escape":       {string(forge(t, testEnvelope, id, `{"a": 1, "\u0061": 2, "revision": 1`)), "twice"},
		"duplicate by case":         {string(forge(t, testEnvelope, id, `{"revision": 1, "REVISION": 2`)), "twice"},
		"duplicate by Unicode case": {string(forge(t, testEnvelope, id, `{"revision": 1, "revi`+"\u017f"+`ion": 2`)), "twice"},
		"duplicate deep":            {string(forge(t, testEnvelope, id, `{"a": [[{"b": {"c": 1, "c": 1}}]], "revision": 1`)), "twice"},
		"revision missing":          {string(forge(t, testEnvelope, id, `{"a": 1`)), "revision"},
		"revision only nested":      {string(forge(t, testEnvelope, id, `{"a": {"revision": 1}`)), "revision"},
		"revision in another case":  {string(forge(t, testEnvelope, id, `{"Revision": 1`)), "revision"},
		"revision zero":             {string(forge(t, testEnvelope, id, `{"revision": 0`)), "revision"},
		"revision negative":         {string(forge(t, testEnvelope, id, `{"revision": -1`)), "revision"},
		"revision negative zero":    {string(forge(t, testEnvelope, id, `{"revision": -0`)), "revision"},
		"revision with a point":     {string(forge(t, testEnvelope, id, `{"revision": 1.0`)), "revision"},
		"revision with exponent":    {string(forge(t, testEnvelope, id, `{"revision": 1e0`)), "revision"},
		"revision too large":        {string(forge(t, testEnvelope, id, `{"revision": 18446744073709551616`)), "revision"},
		"revision as text":          {string(forge(t, testEnvelope, id, `{"revision": "1"`)), "revision"},
		"revision null":             {string(forge(t, testEnvelope, id, `{"revision": null`)), "revision"},
		"revision object":           {string(forge(t, testEnvelope, id, `{"revision": {"revision": 1}`)), "revision"},
		"comma twice":               {string(forge(t, testEnvelope, id, `{"revision": 1,`)), "not JSON"},
		"comma in array":            {string(forge(t, testEnvelope, id, `{"a": [1,], "revision": 1`)), "not JSON"},
		"comment":                   {string(forge(t, testEnvelope, id, `{"revision": 1 /* x */`)), "not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := testEnvelope.Open([]byte(tc.value))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error is %v, want one with %q", err, tc.want)
			}
			if s.Body != nil || s.Verify(id.Public()) == nil {
				t.Error("a refused value came back as something")
			}
		})
	}
}

// TestForeignMembers: a record written by a later version verifies, and is kept byte for byte.
func TestForeignMembers(t *testing.T) {
	id := testIdentity(t, 1)
	prefix := "{\"future\":[{\"a\" : 1.50e+3}],\r\n\t\"\\u0041\":\"\\/\", \"revision\": 1"
	value := forge(t, testEnvelope, id, prefix)
	s, err := testEnvelope.Open(value)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(id.Public()); err != nil {
		t.Error(err)
	}
	if !bytes.HasPrefix(s.Body, []byte(prefix)) {
		t.Errorf("body was re-encoded: %s", s.Body)
	}
}

func TestVerifyBinds(t *testing.T) {
	id, other := testIdentity(t, 1), testIdentity(t, 2)
	value := mustSeal(t, testEnvelope, id, record{Name: "n", Revision: 3})
	newer := mustSeal(t, testEnvelope, id, record{Name: "n", Revision: 4})
	sigAt := len(value) - tailLen
	for name, tc := range map[string]struct {
		e     Envelope
		key   IdentityKey
		value []byte
	}{
		"another key":     {testEnvelope, other.Public(), value},
		"no key":          {testEnvelope, IdentityKey{}, value},
		"another kind":    {Envelope{"node", "c1", "networks/blue"}, id.Public(), value},
		"another cluster": {Envelope{"network", "c2", "networks/blue"}, id.Public(), value},
		"another path":    {Envelope{"network", "c1", "networks/green"}, id.Public(), value},
		"path cut apart":  {Envelope{"network", "c1\nnetworks", "blue"}, id.Public(), value},
		"newer revision":  {testEnvelope, id.Public(), bytes.Replace(value, []byte(`"revision": 3`), []byte(`"revision": 4`), 1)},
		"longer revision": {testEnvelope, id.Public(), bytes.Replace(value, []byte(`"revision": 3`), []byte(`"revision": 33`), 1)},
		"name changed":    {testEnvelope, id.Public(), bytes.Replace(value, []byte(`"n"`), []byte(`"m"`), 1)},
		"blank added":     {testEnvelope, id.Public(), bytes.Replace(value, []byte(`{`), []byte(`{ `), 1)},
		"member added":    {testEnvelope, id.Public(), bytes.Replace(value, []byte(`{`), []byte(`{"x": 1,`), 1)},
		"signature of another revision": {testEnvelope, id.Public(),
			append(bytes.Clone(newer[:sigAt]), value[sigAt:]...)},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := tc.e.Open(tc.value)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Verify(tc.key); !errors.Is(err, os.ErrPermission) {
				t.Errorf("error is %v, want os.ErrPermission", err)
			}
		})
	}
}

// TestMessageIsUnambiguous: fields cannot flow into each other.
func TestMessageIsUnambiguous(t *testing.T) {
	seen := map[string]string{}
	for _, e := range []Envelope{{"a", "b", "c"}, {"ab", "c", "d"}, {"a", "bc", "d"}, {"a", "b", "cd"}, {"a", "b", "c/1"}} {
		for _, rev := range []uint64{1, 11} {
			for _, body := range []string{"{", "1{"} {
				what := fmt.Sprint(e, rev, body)
				m := string(e.message(rev, []byte(body)))
				if prev, dup := seen[m]; dup {
					t.Errorf("%s and %s sign the same bytes", prev, what)
				}
				seen[m] = what
			}
		}
	}
}

// TestEveryBitFlip: there is no single bit of a record that can change.
func TestEveryBitFlip(t *testing.T) {
	id := testIdentity(t, 1)
	value := mustSeal(t, testEnvelope, id, record{Name: "web", Labels: map[string]string{"Key": "v"}, List: []int{1, 2}, Revision: 12, Note: "ü\n\""})
	for i := range value {
		for bit := range 8 {
			flipped := bytes.Clone(value)
			flipped[i] ^= 1 << bit
			if s, err := testEnvelope.Open(flipped); err == nil && s.Verify(id.Public()) == nil {
				t.Errorf("bit %d of byte %d (%q) may flip", bit, i, value[i])
			}
		}
	}
	for i := range value { // nor may a byte go, or come
		if s, err := testEnvelope.Open(append(bytes.Clone(value[:i]), value[i+1:]...)); err == nil && s.Verify(id.Public()) == nil {
			t.Errorf("byte %d (%q) may go", i, value[i])
		}
		for _, b := range []byte(" \n\t\x000,") {
			if s, err := testEnvelope.Open(bytes.Join([][]byte{value[:i], value[i:]}, []byte{b})); err == nil && s.Verify(id.Public()) == nil {
				t.Errorf("%q may come before byte %d", b, i)
			}
		}
	}
}
