package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// extensions are the file types, by the ending of the name.
var extensions = []string{".yaml", ".yml", ".toml", ".json", ".hcl"}

// maxFile bounds a file's size in bytes; a configuration is a few hundred.
const maxFile = 1 << 20

// maxDepth bounds nesting; the deepest key has three parts.
const maxDepth = 8

// codecs are the parsers viper is given: its own for TOML; HCL, which it no longer has; and for YAML and JSON ones that
// refuse what its own pass over in silence: a second document, and a key that is set twice.
func codecs() *viper.DefaultCodecRegistry {
	r := viper.NewCodecRegistry()
	for format, c := range map[string]decoder{"yaml": decodeYAML, "yml": decodeYAML, "json": decodeJSON, "hcl": decodeHCL} {
		_ = r.RegisterCodec(format, c) // never fails
	}
	return r
}

// decoder is a viper.Codec that only reads.
type decoder func(data []byte, into map[string]any) error

func (d decoder) Decode(data []byte, into map[string]any) error { return d(data, into) }
func (d decoder) Encode(map[string]any) ([]byte, error)         { return nil, errors.ErrUnsupported }

// decode parses a file's content; the name says which parser. It returns no content of the file in its errors,
// for a token may stand in it.
func decode(name string, data []byte) (tree map[string]any, err error) {
	ext := strings.ToLower(filepath.Ext(strings.TrimSuffix(name, ".example"))) // so that the examples can be checked in place
	if !slices.Contains(extensions, ext) {
		return nil, fmt.Errorf("unknown file type %q; the name must end in %s", ext, orList(extensions))
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("is larger than %d bytes", maxFile)
	}
	d, err := codecs().Decoder(ext[1:])
	if err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil { // the HCL parser panics on some numbers and strings
			tree, err = nil, fmt.Errorf("parse %s: malformed value", ext[1:])
		}
	}()
	tree = map[string]any{}
	if err := d.Decode(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), tree); err != nil {
		return nil, fmt.Errorf("parse %s: %w", ext[1:], parserError(err))
	}
	return tree, nil
}

// parserError adds the position where the parser knows it and does not say it.
func parserError(err error) error {
	var positioned interface{ Position() (row, column int) } // go-toml's DecodeError
	if errors.As(err, &positioned) {
		row, column := positioned.Position()
		return fmt.Errorf("line %d, column %d: %s", row, column, strings.TrimPrefix(err.Error(), "toml: "))
	}
	return errors.New(strings.TrimPrefix(err.Error(), "toml: "))
}

func decodeYAML(data []byte, into map[string]any) error {
	d := yaml.NewDecoder(bytes.NewReader(data))
	var tree any
	switch err := d.Decode(&tree); {
	case errors.Is(err, io.EOF):
		return nil // only comments
	case err != nil:
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New(`more than one document ("---")`)
	}
	switch t := tree.(type) {
	case nil:
	case map[string]any:
		maps.Copy(into, t)
	case map[any]any:
		maps.Copy(into, textKeys(t))
	default:
		return fmt.Errorf("the whole file is %s; want keys and values", typeName(tree))
	}
	return nil
}

func textKeys(m map[any]any) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[fmt.Sprint(k)] = v
	}
	return out
}

func decodeJSON(data []byte, into map[string]any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	tree, err := jsonValue(d, 0)
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("more text after the closing brace")
		}
	}
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("ends too early")
		}
		offset := min(int(d.InputOffset()), len(data))
		return fmt.Errorf("line %d: %w", 1+bytes.Count(data[:offset], []byte("\n")), err)
	}
	object, ok := tree.(map[string]any)
	if !ok {
		return fmt.Errorf("the whole file is %s; want keys and values", typeName(tree))
	}
	maps.Copy(into, object)
	return nil
}

// jsonValue reads one value, refusing duplicate keys, which encoding/json lets pass.
func jsonValue(d *json.Decoder, depth int) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, errors.New("nested too deeply")
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			name, _ := key.(string)
			if _, twice := object[name]; twice {
				return nil, fmt.Errorf("%q is set twice", name)
			}
			if object[name], err = jsonValue(d, depth+1); err != nil {
				return nil, err
			}
		}
		_, err = d.Token()
		return object, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			item, err := jsonValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		_, err = d.Token()
		return list, err
	}
	return token, nil
}
