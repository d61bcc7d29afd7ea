package apiserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"weft/pkg/api"
)

// decode reads one JSON object into v: unknown fields, wrong types, a second value and anything but an object are
// errors of code Invalid that name the place.
func decode(body io.Reader, v any) error {
	data, err := io.ReadAll(body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return api.Errorf(api.Invalid, "request body is larger than %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return api.Errorf(api.Invalid, "read request body: %v", err)
	}
	data = bytes.TrimLeft(data, " \t\r\n")
	if len(data) == 0 {
		return api.Errorf(api.Invalid, "request body is empty: want a JSON object")
	}
	if data[0] != '{' {
		return api.Errorf(api.Invalid, "request body is not a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return api.Errorf(api.Invalid, "request body: %s", explain(err))
	}
	if _, err := dec.Token(); err != io.EOF {
		return api.Errorf(api.Invalid, "request body: something follows the JSON object")
	}
	return nil
}

// explain says what encoding/json found wrong in words for the person who wrote the request.
func explain(err error) string {
	var typ *json.UnmarshalTypeError
	if errors.As(err, &typ) {
		return fmt.Sprintf("field %q is a JSON %s, want %s", typ.Field, typ.Value, typ.Type)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "the JSON object does not end"
	}
	// The package has no type for an unknown field, only this text.
	return strings.TrimPrefix(err.Error(), "json: ")
}

// writeJSON sends v with status; encoding happens first, so that a failure is a clean 500.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return writeBytes(w, status, "application/json", append(data, '\n'))
}

func writeBytes(w http.ResponseWriter, status int, contentType string, data []byte) error {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", fmt.Sprint(len(data)))
	w.WriteHeader(status)
	if _, err := w.Write(data); err != nil {
		return errGone{err}
	}
	return nil
}

// errGone marks an answer that could not be delivered: nothing more can be sent.
type errGone struct{ error }
