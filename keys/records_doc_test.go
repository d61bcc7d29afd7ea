package keys

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// docBlock returns the content of the fenced block with this info string in docs/records.md.
func docBlock(t *testing.T, info string) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/records.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok1 := strings.Cut(string(doc), "\n```"+info+"\n")
	block, _, ok2 := strings.Cut(rest, "```\n")
	if !ok1 || !ok2 {
		t.Fatalf("docs/records.md has no block %q", info)
	}
	return block
}

// TestRecordsDoc executes the worked example of docs/records.md: with this package, and by hand with nothing but what
// the page says.
func TestRecordsDoc(t *testing.T) {
	value := docBlock(t, "value")
	id, err := IdentityFrom(unhex(t, strings.TrimSpace(docBlock(t, "seed"))))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParseIdentityKey(strings.TrimSpace(docBlock(t, "identity")))
	if err != nil || key != id.Public() {
		t.Fatalf("the seed's key is %s, the page says %s, %v", id.Public(), key, err)
	}
	e := Envelope{Kind: "network", Cluster: "5d41402abc4b", Path: "networks/my-app"}

	t.Run("open", func(t *testing.T) {
		s, err := e.Open([]byte(value))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(key); err != nil || s.Revision != 7 {
			t.Errorf("revision %d, %v", s.Revision, err)
		}
	})
	t.Run("seal", func(t *testing.T) {
		head, _, _ := strings.Cut(value, ",\n  \"signature\"")
		got, err := e.Seal(id, json.RawMessage(head+"}"))
		if diff := cmp.Diff(value, string(got)); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	})
	t.Run("by hand", func(t *testing.T) {
		message := "weft/v1 network\x005d41402abc4b\x00networks/my-app\x007\x00" + value[:len(value)-110]
		sum := sha256.Sum256([]byte(message))
		if diff := cmp.Diff(strings.TrimSpace(docBlock(t, "sha256")), hex.EncodeToString(sum[:])); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}
		var rec struct{ Signature string }
		if err := json.Unmarshal([]byte(value), &rec); err != nil {
			t.Fatal(err)
		}
		sig, err := base64.StdEncoding.DecodeString(rec.Signature)
		if err != nil || !ed25519.Verify(key[:], []byte(message), sig) {
			t.Errorf("the signature does not verify, %v", err)
		}
	})
	t.Run("recipe", func(t *testing.T) {
		// The parts above do not need it; where there is no OpenSSL the recipe is of no use either.
		if _, err := exec.LookPath("openssl"); err != nil {
			t.Log("no openssl here, the shell recipe was not tried")
			return
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "record.json"), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-ec", docBlock(t, "sh"))
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "IDENTITY="+key.String())
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Verified Successfully") {
			t.Errorf("%v: %s", err, out)
		}
	})
}
