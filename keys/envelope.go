package keys

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// MaxValue is the largest signed value in bytes that Open reads: the limit of one value in Consul's KV store.
const MaxValue = 512 << 10

// A value is  SIGNED tailHead SIGNATURE tailEnd  with nothing before, between or after. The tail is compared byte by
// byte, so a record has exactly one spelling: whoever cannot sign cannot change even its white space.
const (
	tailHead = ",\n  \"signature\": \""
	tailEnd  = "\"\n}\n"
)

var (
	sigText = base64.StdEncoding.EncodedLen(ed25519.SignatureSize)
	tailLen = len(tailHead) + sigText + len(tailEnd)
)

// Envelope says what a signature speaks about beside the record itself, so that a signed value is worth nothing under
// another path, as another kind of record or in another cluster.
type Envelope struct {
	Kind    string // "node", "network" or "endpoints"; lower-case letters
	Cluster string // the cluster's id, not empty
	Path    string // KV path relative to the configured prefix, without leading slash: "nodes/n1"
}

// Signed is a value that [Envelope.Open] has taken apart. Nothing in it may be trusted before Verify says so; reading
// Body earlier is for finding out which key to verify with.
type Signed struct {
	// Revision is the record's own, at least 1. The caller refuses what is lower than it has seen before.
	Revision uint64
	// Body is the whole value as it was received, a JSON object with its signature, for json.Unmarshal.
	Body []byte

	envelope Envelope
	message  []byte
	sig      []byte
}

// Seal signs record, which marshals to a JSON object with an integer member "revision" of at least 1 and none named
// "signature". The result is indented JSON with the members in record's order and "signature" last; Open reads it.
func (e Envelope) Seal(id Identity, record any) ([]byte, error) {
	value, err := e.seal(id, record)
	if err != nil {
		return nil, fmt.Errorf("seal %s record %s: %w", e.Kind, e.Path, err)
	}
	return value, nil
}

func (e Envelope) seal(id Identity, record any) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	if id.IsZero() {
		return nil, errors.New("no identity to sign with")
	}
	signed, err := encode(record)
	if err != nil {
		return nil, err
	}
	shape, err := parseObject(append(bytes.Clone(signed), '}'))
	if err != nil {
		return nil, err
	}
	if shape.lastKey == "signature" {
		return nil, errors.New(`the record has a member "signature" of its own`)
	}
	if len(signed)+tailLen > MaxValue {
		return nil, fmt.Errorf("%d bytes are more than the %d that fit", len(signed)+tailLen, MaxValue)
	}
	sig := ed25519.Sign(id.private(), e.message(shape.revision, signed))
	value := append(signed, tailHead...)
	value = base64.StdEncoding.AppendEncode(value, sig)
	value = append(value, tailEnd...)
	// Whatever Open would refuse must not be written: a duplicate made by a record's own marshaller, for one.
	if _, err := e.open(value); err != nil {
		return nil, err
	}
	return value, nil
}

// encode returns record as indented JSON up to and without the line break before the closing brace. HTML characters
// are left as they are: people read these values.
func encode(record any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(record); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	signed, ok := bytes.CutSuffix(buf.Bytes(), []byte("\n}\n"))
	if !ok || buf.Bytes()[0] != '{' {
		return nil, errors.New("not a JSON object with members")
	}
	return signed, nil
}

// Open takes value apart strictly: at most MaxValue bytes of valid UTF-8, one JSON object exactly as Seal lays it out
// around the signature, no key twice in an object at any depth (at the top also not in another case, because
// encoding/json would take either for the same field), a positive integer revision, "signature" last. It proves
// nothing about who signed: call Verify.
func (e Envelope) Open(value []byte) (Signed, error) {
	s, err := e.open(value)
	if err != nil {
		return Signed{}, fmt.Errorf("open %s record %s: %w", e.Kind, e.Path, err)
	}
	return s, nil
}

func (e Envelope) open(value []byte) (Signed, error) {
	if err := e.check(); err != nil {
		return Signed{}, err
	}
	if len(value) > MaxValue {
		return Signed{}, fmt.Errorf("%d bytes are more than the %d allowed", len(value), MaxValue)
	}
	shape, err := parseObject(value)
	if err != nil {
		return Signed{}, err
	}
	if shape.lastKey != "signature" {
		return Signed{}, errors.New(`the last member is not "signature"`)
	}
	cut := len(value) - tailLen
	if cut != shape.lastComma {
		return Signed{}, errors.New("the signature member is not laid out as it must be (see docs/records.md)")
	}
	tail := string(value[cut:])
	if !strings.HasPrefix(tail, tailHead) || !strings.HasSuffix(tail, tailEnd) {
		return Signed{}, errors.New("the signature member is not laid out as it must be (see docs/records.md)")
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(tail[len(tailHead) : len(tailHead)+sigText])
	if err != nil || len(sig) != ed25519.SignatureSize {
		return Signed{}, errors.New("the signature is not 64 bytes in base64")
	}
	return Signed{
		Revision: shape.revision,
		Body:     bytes.Clone(value),
		envelope: e,
		message:  e.message(shape.revision, value[:cut]),
		sig:      sig,
	}, nil
}

// Verify reports whether k signed this value as this kind of record, at this path, in this cluster. The error wraps
// os.ErrPermission.
func (s Signed) Verify(k IdentityKey) error {
	if !k.IsZero() && len(s.sig) == ed25519.SignatureSize && ed25519.Verify(k[:], s.message, s.sig) {
		return nil
	}
	return fmt.Errorf("verify %s record %s: not signed by identity %s: %w",
		s.envelope.Kind, s.envelope.Path, k.Short(), os.ErrPermission)
}

// message is what is signed: header fields that cannot contain NUL, each ended by one, then the value's bytes.
func (e Envelope) message(revision uint64, signed []byte) []byte {
	m := make([]byte, 0, len(e.Kind)+len(e.Cluster)+len(e.Path)+len(signed)+32)
	for _, field := range []string{"weft/v1 " + e.Kind, e.Cluster, e.Path, strconv.FormatUint(revision, 10)} {
		m = append(m, field...)
		m = append(m, 0)
	}
	return append(m, signed...)
}

// check refuses fields that would make the message ambiguous, or that a caller forgot.
func (e Envelope) check() error {
	switch {
	case e.Kind == "" || strings.Trim(e.Kind, "abcdefghijklmnopqrstuvwxyz") != "":
		return fmt.Errorf("envelope kind %q is not a lower-case word", e.Kind)
	case e.Cluster == "" || strings.ContainsRune(e.Cluster, 0):
		return fmt.Errorf("envelope cluster id %q is empty or holds NUL", e.Cluster)
	case e.Path == "" || e.Path[0] == '/' || strings.ContainsRune(e.Path, 0):
		return fmt.Errorf("envelope path %q is empty, starts with a slash or holds NUL", e.Path)
	}
	return nil
}
