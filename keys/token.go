package keys

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Token is a key with which its holder may admit nodes to a cluster, as often and as long as the token's record says. It
// prints as "(redacted)" where its key does.
type Token struct {
	Cluster string
	Key     Identity
}

// tokenPrefix begins the text of every token, with the version of its form.
const tokenPrefix = "weft-join-1."

var errToken = errors.New(`not a join token as "weft trust token create" prints it`)

// Reveal is the token's text: one word, without white space. The caller keeps it from being printed where others see it.
func (t Token) Reveal() string {
	b := t.Key.Reveal()
	return tokenPrefix + t.Cluster + "." + base64.RawURLEncoding.EncodeToString(b[:])
}

// String implements fmt.Stringer: "(redacted)".
func (t Token) String() string { return redacted }

// ParseToken reads what Reveal returned; the error does not quote the input.
func ParseToken(s string) (Token, error) {
	rest, ok := strings.CutPrefix(s, tokenPrefix)
	cluster, key, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || cluster == "" || len(cluster) > 64 || strings.Trim(cluster, "0123456789abcdef") != "" {
		return Token{}, fmt.Errorf("parse join token: %w", errToken)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(key)
	if err != nil || len(raw) != Size || len(key) != base64.RawURLEncoding.EncodedLen(Size) {
		return Token{}, fmt.Errorf("parse join token: %w", errToken)
	}
	id, err := IdentityFrom([Size]byte(raw))
	if err != nil {
		return Token{}, fmt.Errorf("parse join token: %w", errToken)
	}
	return Token{Cluster: cluster, Key: id}, nil
}
