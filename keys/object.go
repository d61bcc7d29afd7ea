package keys

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDepth bounds nesting; weft's own records use four levels.
const maxDepth = 32

// shape is what the envelope needs to know about a JSON object.
type shape struct {
	revision uint64
	lastKey  string
	// lastComma is the offset of the comma before the last key, -1 when it is the only one.
	lastComma int
}

// parseObject checks that value is one JSON object, starting at its first byte, that every reader understands alike:
// valid UTF-8, no key twice, an exact revision.
func parseObject(value []byte) (shape, error) {
	switch {
	case !utf8.Valid(value):
		return shape{}, errors.New("not UTF-8")
	case len(value) == 0 || value[0] != '{':
		return shape{}, errors.New("not a JSON object")
	case !json.Valid(value): // before walking: Decoder.Token alone is laxer than the grammar
		return shape{}, errors.New("not JSON, or something follows the object")
	}
	w := walker{dec: json.NewDecoder(bytes.NewReader(value)), value: value, out: shape{lastComma: -1}}
	w.dec.UseNumber()
	if err := w.walk(); err != nil {
		return shape{}, err
	}
	if w.out.revision == 0 {
		return shape{}, errors.New(`no member "revision"`)
	}
	return w.out, nil
}

// walker goes through a document's tokens with a stack of its own: recursion would let input choose the stack's size.
type walker struct {
	dec   *json.Decoder
	value []byte
	stack []container
	out   shape
}

// container is an open object or array.
type container struct {
	keys map[string]bool // nil for an array
	key  string          // the key whose value comes next
	want bool            // in an object: a key comes next
}

func (w *walker) walk() error {
	for {
		before := w.dec.InputOffset()
		tok, err := w.dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read JSON: %w", err)
		}
		if err := w.token(tok, before); err != nil {
			return err
		}
	}
}

func (w *walker) token(tok json.Token, before int64) error {
	if d, ok := tok.(json.Delim); ok && (d == '}' || d == ']') {
		w.stack = w.stack[:len(w.stack)-1]
		w.valueDone()
		return nil
	}
	if n := len(w.stack); n > 0 && w.stack[n-1].want {
		return w.key(tok.(string), before)
	}
	if len(w.stack) == 1 && w.stack[0].key == "revision" {
		if err := w.setRevision(tok); err != nil {
			return err
		}
	}
	switch tok {
	case json.Delim('{'), json.Delim('['):
		if len(w.stack) == maxDepth {
			return fmt.Errorf("nested more than %d deep", maxDepth)
		}
		c := container{}
		if tok == json.Delim('{') {
			c = container{keys: map[string]bool{}, want: true}
		}
		w.stack = append(w.stack, c)
	default:
		w.valueDone()
	}
	return nil
}

func (w *walker) key(key string, before int64) error {
	top := &w.stack[len(w.stack)-1]
	id := key
	if len(w.stack) == 1 {
		id = fold(key)
	}
	if top.keys[id] {
		return fmt.Errorf("key %q stands twice in one object", key)
	}
	top.keys[id], top.key, top.want = true, key, false
	if len(w.stack) == 1 {
		w.out.lastKey = key
		if len(top.keys) > 1 {
			w.out.lastComma = int(before) + bytes.IndexByte(w.value[before:], ',')
		}
	}
	return nil
}

func (w *walker) valueDone() {
	if n := len(w.stack); n > 0 && w.stack[n-1].keys != nil {
		w.stack[n-1].want = true
	}
}

func (w *walker) setRevision(tok json.Token) error {
	num, ok := tok.(json.Number)
	if !ok {
		return errors.New(`member "revision" is not a number`)
	}
	v, err := strconv.ParseUint(num.String(), 10, 64)
	if err != nil || v == 0 {
		return fmt.Errorf("revision %.40s is not an integer from 1 to 18446744073709551615", num)
	}
	w.out.revision = v
	return nil
}

// fold maps strings that encoding/json takes for the same struct field to one string.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		for next := unicode.SimpleFold(r); ; next = unicode.SimpleFold(next) {
			if next <= r {
				return next
			}
		}
	}, s)
}
