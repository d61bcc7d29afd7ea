package apiserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/pkg/api"
)

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       string // part of the message, empty for success
	}{
		{"good", `{"network":"n","newNetns":true}`, ""},
		{"white space around", "\n {\"network\":\"n\"} \n", ""},
		{"unknown field", `{"network":"n","adress":"x"}`, `unknown field "adress"`},
		{"wrong type", `{"network":7}`, `field "network" is a JSON number, want string`},
		{"wrong element", `{"services":["a",1]}`, `field "services`},
		{"empty", ` `, "is empty"},
		{"array", `[]`, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"cut off", `{"network":"n"`, "does not end"},
		{"garbage", `{network}`, "invalid character"},
		{"two objects", `{"network":"n"}{}`, "something follows"},
		{"rubbish behind", `{"network":"n"} x`, "something follows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var spec api.AttachSpec
			err := decode(strings.NewReader(tt.body), &spec)
			if tt.want == "" {
				if err != nil || spec.Network != "n" {
					t.Fatalf("decode: %v, %+v", err, spec)
				}
				return
			}
			var e *api.Error
			if !errors.As(err, &e) || e.Code != api.Invalid || !strings.Contains(e.Message, tt.want) {
				t.Errorf("decode: %v, want invalid with %q", err, tt.want)
			}
		})
	}
}

func TestDecodeLimit(t *testing.T) {
	body := http.MaxBytesReader(httptest.NewRecorder(), readCloser{strings.NewReader(`{"network":"` + strings.Repeat("n", 100) + `"}`)}, 50)
	err := decode(body, &api.AttachSpec{})
	if err == nil || !strings.Contains(err.Error(), "larger than 50 bytes") {
		t.Errorf("decode: %v", err)
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// FuzzDecode: whatever comes, the answer is a value that survives a round trip, or one line of code invalid.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"network":"n","id":"x","services":["a"],"address":"10.0.0.2","pid":7,"newNetns":true}`,
		`{"name":"n","subnet":"10.0.0.0/24","labels":{"a":"b"},"mtu":1450}`,
		`{"pid":1}`, `{"purge":true}`, `{"network":null}`, `{"mtu":1e400}`, "{\"name\":\"a\nb\"}", `{"":0}`, `[`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		roundTrip[api.AttachSpec](t, data)
		roundTrip[api.NetworkSpec](t, data)
		roundTrip[api.Process](t, data)
		roundTrip[api.LeaveSpec](t, data)
	})
}

func roundTrip[T any](t *testing.T, data []byte) {
	var v, again T
	if err := decode(bytes.NewReader(data), &v); err != nil {
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.Invalid || strings.ContainsAny(e.Message, "\r\n") || e.Message == "" {
			t.Fatalf("decode %q: %#v", data, err)
		}
		return
	}
	enc, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("encode %+v: %v", v, err)
	}
	if err := decode(bytes.NewReader(enc), &again); err != nil {
		t.Fatalf("decode again %s: %v", enc, err)
	}
	enc2, err := json.Marshal(again)
	if err != nil || !bytes.Equal(enc, enc2) {
		t.Fatalf("round trip (-want +got):\n%s", cmp.Diff(string(enc), string(enc2)))
	}
}
