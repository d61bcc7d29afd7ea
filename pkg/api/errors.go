package api

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// DefaultSocket is where an agent listens unless it is told otherwise.
const DefaultSocket = "/run/weft/weft.sock"

// VersionHeader carries Version in requests and answers.
const VersionHeader = "Weft-Api"

// HTTPStatus is the status that an Error with this code travels with; 500 for a code that is not listed.
func (c Code) HTTPStatus() int {
	switch c {
	case Invalid:
		return 400
	case Forbidden:
		return 403
	case NotFound:
		return 404
	case Conflict:
		return 409
	case Exhausted:
		return 507
	case Unavailable:
		return 503
	}
	return 500
}

// Errorf makes an Error; the message is one line that says what is wrong, where and what to do.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: OneLine(fmt.Sprintf(format, args...))}
}

// Is makes errors.Is hold for os.ErrNotExist, os.ErrExist and os.ErrPermission, so that both sides of the socket can
// test for the same three sentinels.
func (e *Error) Is(target error) bool {
	switch target {
	case os.ErrNotExist:
		return e.Code == NotFound
	case os.ErrExist:
		return e.Code == Conflict
	case os.ErrPermission:
		return e.Code == Forbidden
	}
	return false
}

// FromError classifies err for the way over the socket, nil for nil. An Error inside err decides the code and the
// whole of err is the message; else the sentinels of package os and the contexts' ends are translated, and anything
// unknown is Internal.
func FromError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return Errorf(e.Code, "%s", err.Error())
	}
	code := Internal
	switch {
	case errors.Is(err, os.ErrNotExist):
		code = NotFound
	case errors.Is(err, os.ErrExist):
		code = Conflict
	case errors.Is(err, os.ErrPermission):
		code = Forbidden
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, os.ErrDeadlineExceeded):
		code = Unavailable
	}
	return Errorf(code, "%s", err.Error())
}

// OneLine joins the non-empty lines of s with "; ", as messages for people are one line.
func OneLine(s string) string {
	if !strings.ContainsAny(s, "\r\n") {
		return strings.TrimSpace(s)
	}
	var lines []string
	for line := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}
