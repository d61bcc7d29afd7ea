package keys

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func testKEM(t testing.TB) KEMPrivate {
	t.Helper()
	k, err := NewKEMPrivate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKEMAgrees(t *testing.T) {
	b := testKEM(t)
	info := []byte("a to b")
	ct, sent, err := b.Public().Encapsulate(info)
	if err != nil || len(ct) != CiphertextSize {
		t.Fatalf("%d bytes, %v", len(ct), err)
	}
	got, err := b.Decapsulate(ct, info)
	if err != nil || !got.Equal(sent) {
		t.Fatalf("the two sides do not agree: %v", err)
	}
	_, again, err := b.Public().Encapsulate(info)
	if err != nil || again.Equal(sent) {
		t.Errorf("two encapsulations give one secret, %v", err)
	}
	for name, wrong := range map[string]func() (PresharedKey, error){
		"another info": func() (PresharedKey, error) { return b.Decapsulate(ct, []byte("b to a")) },
		"another key":  func() (PresharedKey, error) { return testKEM(t).Decapsulate(ct, info) },
		"one bit of the ML-KEM part": func() (PresharedKey, error) {
			c := append([]byte(nil), ct...)
			c[5] ^= 1
			return b.Decapsulate(c, info)
		},
		"one bit of the X25519 part": func() (PresharedKey, error) {
			c := append([]byte(nil), ct...)
			c[len(c)-5] ^= 1
			return b.Decapsulate(c, info)
		},
		"cut short": func() (PresharedKey, error) { return b.Decapsulate(ct[:100], info) },
		"no key":    func() (PresharedKey, error) { return KEMPrivate{}.Decapsulate(ct, info) },
	} {
		if k, err := wrong(); err == nil && k.Equal(sent) {
			t.Errorf("%s: the same secret", name)
		}
	}
}

func TestMix(t *testing.T) {
	k, err := NewPresharedKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewClusterSecret([]byte(strings.Repeat("s", MinSecret)))
	if err != nil {
		t.Fatal(err)
	}
	mix := func(s ClusterSecret, info string) PresharedKey {
		m, err := k.Mix(s, []byte(info))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if !mix(s, "i").Equal(mix(s, "i")) || mix(s, "i").Equal(mix(ClusterSecret{}, "i")) || mix(s, "i").Equal(mix(s, "j")) || mix(s, "i").Equal(k) {
		t.Error("the mix does not depend on exactly its inputs")
	}
	if _, err := NewClusterSecret([]byte("short")); err == nil || strings.Contains(err.Error(), "short") {
		t.Errorf("a short secret: %v", err)
	}
	if k.Fingerprint() == mix(s, "i").Fingerprint() || len(k.Fingerprint()) != 8 || (PresharedKey{}).Fingerprint() != "" {
		t.Error("fingerprints do not tell keys apart")
	}
}

func TestKEMKeyText(t *testing.T) {
	k := testKEM(t).Public()
	b, err := json.Marshal(k)
	var got KEMKey
	if err != nil || json.Unmarshal(b, &got) != nil || got != k || len(k) != KEMSize {
		t.Fatalf("%s does not come back, %v", b, err)
	}
	if err := k.Validate(); err != nil {
		t.Error(err)
	}
	if err := KEMKey(strings.Repeat("\xff", KEMSize)).Validate(); err == nil {
		t.Error("coefficients beyond the modulus are taken (FIPS 203 section 7.2)")
	}
	if len(fmt.Sprint(k)) > 20 {
		t.Errorf("it prints as %v", k)
	}
}

func FuzzKEM(f *testing.F) {
	k, err := KEMPrivateFrom([Size]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	ct, _, err := k.Public().Encapsulate(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ct, []byte(k.Public()))
	f.Fuzz(func(t *testing.T, ct, pub []byte) {
		if got, err := k.Decapsulate(ct, nil); err == nil && got.IsZero() {
			t.Error("a zero secret")
		}
		if KEMKey(pub).Validate() == nil {
			if _, _, err := KEMKey(pub).Encapsulate(nil); err != nil {
				t.Errorf("a valid key cannot be used: %v", err)
			}
		}
	})
}
