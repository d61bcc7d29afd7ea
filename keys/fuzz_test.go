package keys

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"testing"
)

func FuzzOpen(f *testing.F) {
	id := testIdentity(f, 1)
	f.Add(mustSeal(f, testEnvelope, id, record{Name: "n", Revision: 1}))
	f.Add(forge(f, testEnvelope, id, `{"a": [1, {"b": null}], "revision": 1`))
	f.Add([]byte(`{"revision":1,"signature":"` + base64.StdEncoding.EncodeToString(make([]byte, 64)) + `"}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := testEnvelope.Open(data); err == nil {
			checkOpened(t, data, s)
			if s.Verify(testIdentity(t, 2).Public()) == nil {
				t.Error("verifies under a key that never signed")
			}
		}
		// As a record: what Seal takes, Open and Verify take.
		if value, err := testEnvelope.Seal(id, json.RawMessage(data)); err == nil {
			s, err := testEnvelope.Open(value)
			if err != nil || s.Verify(id.Public()) != nil {
				t.Fatalf("sealed value does not open or verify: %v\n%s", err, value)
			}
			checkOpened(t, value, s)
		}
	})
}

// checkOpened compares Open with encoding/json, its slow obvious twin.
func checkOpened(t *testing.T, data []byte, s Signed) {
	t.Helper()
	var twin struct {
		Revision  uint64 `json:"revision"`
		Signature []byte `json:"signature"`
	}
	if err := json.Unmarshal(data, &twin); err != nil {
		t.Fatalf("opened what encoding/json refuses: %v", err)
	}
	if twin.Revision != s.Revision || !bytes.Equal(twin.Signature, s.sig) || !bytes.Equal(s.Body, data) {
		t.Fatalf("encoding/json reads revision %d, signature %x; Open reads %d, %x", twin.Revision, twin.Signature, s.Revision, s.sig)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=")
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := ParsePublicKey(s); err == nil && k.String() != s {
			t.Errorf("%q reads as %s", s, k)
		}
		if k, err := ParsePrivateKey(s); err == nil && k.IsZero() {
			t.Errorf("%q reads as the zero key", s)
		}
	})
}
