package keys

import (
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func unhex(t *testing.T, s string) (b [Size]byte) {
	t.Helper()
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != Size {
		t.Fatalf("bad test vector %q", s)
	}
	return [Size]byte(raw)
}

// TestPublic holds the vectors of RFC 7748 section 6.1 and RFC 8032 section 7.1 (test 1).
func TestPublic(t *testing.T) {
	priv, err := PrivateKeyFrom(unhex(t, "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
	if err != nil {
		t.Fatal(err)
	}
	if want := PublicKey(unhex(t, "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")); priv.Public() != want {
		t.Errorf("WireGuard public key is %s, want %s", priv.Public(), want)
	}
	id, err := IdentityFrom(unhex(t, "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
	if err != nil {
		t.Fatal(err)
	}
	if want := IdentityKey(unhex(t, "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")); id.Public() != want {
		t.Errorf("identity key is %s, want %s", id.Public(), want)
	}
}

func TestParsePublicKey(t *testing.T) {
	const good = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
	for name, tc := range map[string]struct {
		in string
		ok bool
	}{
		"good":              {good, true},
		"empty":             {"", false},
		"no padding":        {good[:43], false},
		"trailing newline":  {good + "\n", false},
		"newline inside":    {good[:20] + "\n" + good[20:43], false},
		"33 bytes":          {"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmoA", false},
		"unused bits set":   {good[:42] + "p=", false},
		"url alphabet":      {strings.ReplaceAll(good, "/", "_"), false},
		"hexadecimal":       {strings.Repeat("ab", 32), false},
		"leading blank":     {" " + good[:43], false},
		"four bytes of pad": {good[:40] + "====", false},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := ParsePublicKey(tc.in)
			if (err == nil) != tc.ok {
				t.Fatalf("ParsePublicKey = %v, %v", k, err)
			}
			id, idErr := ParseIdentityKey(tc.in)
			_, privErr := ParsePrivateKey(tc.in)
			if (idErr == nil) != tc.ok || (privErr == nil) != tc.ok {
				t.Fatalf("identity %v, private %v", idErr, privErr)
			}
			if !tc.ok {
				if tc.in != "" && (strings.Contains(err.Error(), tc.in) || strings.Contains(privErr.Error(), tc.in)) {
					t.Errorf("the error quotes its input: %v", err)
				}
				return
			}
			if k.String() != tc.in || id.String() != tc.in || k.Short() != tc.in[:8] || id.Short() != tc.in[:8] {
				t.Errorf("text is %s (%s), want %s", k, k.Short(), tc.in)
			}
		})
	}
}

func TestPublicKeysInJSON(t *testing.T) {
	type record struct {
		W PublicKey
		I IdentityKey
		M map[PublicKey]int
	}
	w, err := NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	want := record{w.Public(), id.Public(), map[PublicKey]int{w.Public(): 1, {}: 2}}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got record
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	before := got
	if json.Unmarshal([]byte(`{"W":"x"}`), &got) == nil || json.Unmarshal([]byte(`{"I":"x"}`), &got) == nil || got.W != before.W || got.I != before.I {
		t.Error("bad text was taken, or changed the key")
	}
}

func TestKeysEqual(t *testing.T) {
	a, err := NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	again, err := PrivateKeyFrom(a.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParsePrivateKey(formatText(a.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	if !a.Equal(a) || !a.Equal(again) || !a.Equal(parsed) || a.Equal(b) || a.Equal(PrivateKey{}) {
		t.Error("private keys compare wrongly")
	}
	p, err := NewPresharedKey()
	if err != nil {
		t.Fatal(err)
	}
	q, err := PresharedKeyFrom(p.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if !p.Equal(q) || p.Equal(PresharedKey{}) || p.IsZero() || !(PresharedKey{}).IsZero() {
		t.Error("preshared keys compare wrongly")
	}
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	id2, err := IdentityFrom(id.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if !id.Equal(id2) || id.Equal(Identity{}) || id.Public() != id2.Public() {
		t.Error("identities compare wrongly")
	}
}

func TestZeroKeys(t *testing.T) {
	if _, err := PrivateKeyFrom([Size]byte{}); err == nil {
		t.Error("a zero private key was taken")
	}
	if _, err := PresharedKeyFrom([Size]byte{}); err == nil {
		t.Error("a zero preshared key was taken")
	}
	if _, err := IdentityFrom([Size]byte{}); err == nil {
		t.Error("a zero identity was taken")
	}
	if !(PrivateKey{}).Public().IsZero() || !(Identity{}).Public().IsZero() || (PrivateKey{}).Reveal() != [Size]byte{} {
		t.Error("the zero value has a key")
	}
}
