package api_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/pkg/api"
)

func TestFromError(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want *api.Error
	}{
		{"nil", nil, nil},
		{"an error of ours stays", api.Errorf(api.Exhausted, "no address"), &api.Error{Code: api.Exhausted, Message: "no address"}},
		{"wrapped keeps the code and the whole message",
			fmt.Errorf("attach to net: %w", api.Errorf(api.Conflict, "10.0.0.2 is taken")),
			&api.Error{Code: api.Conflict, Message: "attach to net: 10.0.0.2 is taken"}},
		{"not exist", fmt.Errorf("open x: %w", os.ErrNotExist), &api.Error{Code: api.NotFound, Message: "open x: file does not exist"}},
		{"exist", os.ErrExist, &api.Error{Code: api.Conflict, Message: "file already exists"}},
		{"permission", os.ErrPermission, &api.Error{Code: api.Forbidden, Message: "permission denied"}},
		{"deadline", context.DeadlineExceeded, &api.Error{Code: api.Unavailable, Message: "context deadline exceeded"}},
		{"unknown is internal", errors.New("boom"), &api.Error{Code: api.Internal, Message: "boom"}},
		{"lines are joined", errors.Join(errors.New("one"), errors.New("two")), &api.Error{Code: api.Internal, Message: "one; two"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, api.FromError(tt.err)); diff != "" {
				t.Errorf("FromError (-want +got):\n%s", diff)
			}
		})
	}
}

func TestErrorSentinels(t *testing.T) {
	for _, tt := range []struct {
		code   api.Code
		status int
		is     error
	}{
		{api.Invalid, 400, nil}, {api.Forbidden, 403, os.ErrPermission}, {api.NotFound, 404, os.ErrNotExist},
		{api.Conflict, 409, os.ErrExist}, {api.Exhausted, 507, nil}, {api.Unavailable, 503, nil},
		{api.Internal, 500, nil}, {"new-in-another-release", 500, nil},
	} {
		err := fmt.Errorf("wrapped: %w", api.Errorf(tt.code, "x"))
		if got := tt.code.HTTPStatus(); got != tt.status {
			t.Errorf("%s: status %d, want %d", tt.code, got, tt.status)
		}
		for _, sentinel := range []error{os.ErrPermission, os.ErrNotExist, os.ErrExist} {
			if got, want := errors.Is(err, sentinel), sentinel == tt.is; got != want {
				t.Errorf("%s: Is(%v) = %v, want %v", tt.code, sentinel, got, want)
			}
		}
	}
}

func TestAttachSpecValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec api.AttachSpec
		ok   bool
	}{
		{"path", api.AttachSpec{Network: "n", NetNS: "/run/netns/x"}, true},
		{"pid", api.AttachSpec{Network: "n", PID: 7}, true},
		{"path tied to a process", api.AttachSpec{Network: "n", NetNS: "/run/netns/x", PID: 7}, true},
		{"new", api.AttachSpec{Network: "n", NewNetNS: true}, true},
		{"no network", api.AttachSpec{PID: 7}, false},
		{"no namespace", api.AttachSpec{Network: "n"}, false},
		{"negative pid", api.AttachSpec{Network: "n", PID: -1}, false},
		{"new and path", api.AttachSpec{Network: "n", NewNetNS: true, NetNS: "/x"}, false},
		{"new and pid", api.AttachSpec{Network: "n", NewNetNS: true, PID: 7}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.spec.Validate()
			var e *api.Error
			if tt.ok && err != nil || !tt.ok && (!errors.As(err, &e) || e.Code != api.Invalid) {
				t.Errorf("Validate: %v, want ok %v", err, tt.ok)
			}
		})
	}
}
