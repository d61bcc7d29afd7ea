package keys

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
)

// leakForms are the spellings under which 32 bytes could slip out, each shortened so that a part counts as a leak.
func leakForms(b [Size]byte) []string {
	h := hex.EncodeToString(b[:])
	dec := strings.Trim(fmt.Sprint(b[4:8]), "[]")
	octets := make([]string, 4)
	for i := range octets {
		octets[i] = fmt.Sprintf("0x%x", b[4+i])
	}
	return []string{
		string(b[4:8]), fmt.Sprintf("%q", b[4:8])[1:5],
		h[8:16], strings.ToUpper(h[8:16]),
		dec, strings.ReplaceAll(dec, " ", ","), strings.Join(octets, ", "),
		base64.StdEncoding.EncodeToString(b[:])[4:12],
		base64.RawURLEncoding.EncodeToString(b[:])[4:12],
	}
}

func TestSecretsNeverPrint(t *testing.T) {
	var raw [Size]byte
	for i := range raw {
		raw[i] = byte(0xa8 + i)
	}
	priv, err := PrivateKeyFrom(raw)
	if err != nil {
		t.Fatal(err)
	}
	psk, err := PresharedKeyFrom(raw)
	if err != nil {
		t.Fatal(err)
	}
	id, err := IdentityFrom(raw)
	if err != nil {
		t.Fatal(err)
	}
	kem, err := KEMPrivateFrom(raw)
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := ClusterSecretFrom(raw)
	if err != nil {
		t.Fatal(err)
	}
	type exported struct {
		Priv PrivateKey
		PSK  *PresharedKey
		ID   []Identity
		Map  map[string]PrivateKey
		Any  any
	}
	type hidden struct {
		priv PrivateKey
		psk  *PresharedKey
		id   []Identity
		m    map[string]PrivateKey
		a    any
	}
	list := []Identity{id}
	byName := map[string]PrivateKey{"k": priv}
	cases := map[string]any{
		"private":            priv,
		"private pointer":    &priv,
		"preshared":          psk,
		"preshared pointer":  &psk,
		"identity":           id,
		"identity pointer":   &id,
		"KEM":                kem,
		"KEM pointer":        &kem,
		"cluster secret":     cluster,
		"cluster pointer":    &cluster,
		"slice":              list,
		"map":                byName,
		"exported fields":    exported{priv, &psk, list, byName, priv},
		"exported, pointer":  &exported{priv, &psk, list, byName, &id},
		"unexported fields":  hidden{priv, &psk, list, byName, priv},
		"unexported pointer": &hidden{priv, &psk, list, byName, &id},
		"error":              fmt.Errorf("use key %v: %w", priv, fmt.Errorf("%x", id)),
	}
	leaks := leakForms(raw)
	check := func(t *testing.T, how, out string) {
		t.Helper()
		for _, leak := range leaks {
			if strings.Contains(out, leak) {
				t.Errorf("%s leaks %q: %s", how, leak, out)
			}
		}
	}
	for name, v := range cases {
		t.Run(name, func(t *testing.T) {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%+s", "%#s", "%q", "%+q", "%#q", "%x", "%#x", "% x", "%X", "%d",
				"%b", "%c", "%U", "%o", "%O", "%e", "%g", "%t", "%T", "%p", "%z", "%10.3v", "%-40s"} {
				check(t, verb, fmt.Sprintf(verb, v))
			}
			check(t, "Sprint", fmt.Sprint(v))
			if b, err := json.Marshal(v); err == nil {
				check(t, "JSON", string(b))
			}
			var buf bytes.Buffer
			opts := &slog.HandlerOptions{Level: slog.LevelDebug}
			for _, h := range []slog.Handler{slog.NewTextHandler(&buf, opts), slog.NewJSONHandler(&buf, opts)} {
				slog.New(h).With("with", v).Info("message", "key", v, slog.Group("g", "in", v))
			}
			check(t, "slog", buf.String())
		})
	}
	for _, v := range []any{priv, psk, id, kem, cluster, PrivateKey{}, PresharedKey{}, Identity{}, KEMPrivate{}, ClusterSecret{}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if got := fmt.Sprintf(verb, v); got != redacted {
				t.Errorf("%s of %T = %q, want %q", verb, v, got, redacted)
			}
		}
		b, err := json.Marshal(struct{ K any }{v})
		if want := `{"K":"(redacted)"}`; err != nil || string(b) != want {
			t.Errorf("JSON of %T = %s, %v, want %s", v, b, err, want)
		}
		if reflect.TypeOf(v).Comparable() {
			t.Errorf("%T is comparable with ==", v)
		}
	}
	if _, ok := any(&priv).(encoding.TextUnmarshaler); ok {
		t.Error("a redacted key can be read back as a key")
	}
}

// TestLeakFormsFind is the control of the test above: bare bytes are found.
func TestLeakFormsFind(t *testing.T) {
	var raw [Size]byte
	for i := range raw {
		raw[i] = byte(0xa8 + i)
	}
	for _, out := range []string{fmt.Sprint(raw), fmt.Sprintf("%x", raw), fmt.Sprintf("%X", raw), fmt.Sprintf("%s", raw), fmt.Sprintf("%#v", raw),
		fmt.Sprintf("%v", struct{ k *struct{ b [Size]byte } }{}.k) + fmt.Sprint(struct{ b [Size]byte }{raw}), formatText(raw)} {
		found := false
		for _, leak := range leakForms(raw) {
			found = found || strings.Contains(out, leak)
		}
		if !found {
			t.Errorf("not found in %q", out)
		}
	}
}
