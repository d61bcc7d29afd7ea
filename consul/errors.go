package consul

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/hashicorp/consul/api"
)

var (
	// ErrUnavailable says that Consul did not answer, or has no leader: nothing is known about the data. The outcome
	// of a write that ends so is not known either.
	ErrUnavailable = errors.New("consul is unavailable")
	// ErrUnreadable says that Consul answered, and that its answer must not be taken for the data: reading is denied
	// or filtered by ACLs, or the sentinel is missing or foreign.
	ErrUnreadable = errors.New("not readable")
	// ErrConflict says that a transaction was rolled back because a key was not as the writer expected.
	ErrConflict = errors.New("changed by another writer")
)

// Error says which key, what Consul said and what to do. errors.Is finds its kind (one of the sentinels of this
// package, os.ErrNotExist or os.ErrPermission) and its cause.
type Error struct {
	Op   string // "read", "list", "write", "register", ...
	Key  string // full key or other subject
	Kind error
	Said string // Consul's words, may be empty
	Hint string // what to do, may be empty
	// Cause is the transport's or context's error, may be nil.
	Cause error
}

// Error is one line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %v", e.Op, e.Key, e.Kind)
	if e.Said != "" {
		fmt.Fprintf(&b, ": consul said %q", e.Said)
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", e.Cause)
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	return b.String()
}

// Unwrap gives the kind and the cause.
func (e *Error) Unwrap() []error {
	out := []error{e.Kind}
	if e.Cause != nil {
		out = append(out, e.Cause)
	}
	if e.denied() {
		out = append(out, os.ErrPermission)
	}
	return out
}

func (e *Error) denied() bool { return isDenied(e.Said) }

// isDenied tells a refusal by Consul's text: transactions and the agent's endpoints report it under several codes.
func isDenied(said string) bool {
	s := strings.ToLower(said)
	return strings.Contains(s, "permission denied") || strings.Contains(s, "acl not found") || strings.HasPrefix(s, "403 ")
}

// translate turns an API error into an Error. need is the ACL rule that would allow the request, for the hint.
func translate(op, key, need string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Op: op, Key: key, Kind: ErrUnavailable}
	var status api.StatusError
	text := strings.TrimPrefix(err.Error(), "Failed request: ")
	switch {
	case errors.As(err, &status):
		e.Said = strings.TrimSpace(fmt.Sprintf("%d %s", status.Code, status.Body))
	case text != err.Error():
		e.Said = strings.TrimSpace(text) // the transaction endpoint: the code is lost
	case errors.Is(err, errTokenFile):
		return &Error{Op: op, Key: key, Kind: ErrUnreadable, Cause: plain(err), Hint: "check consul.token_file"}
	default:
		e.Cause = plain(err)
		e.Hint = "is the Consul agent running, and the address right?"
		if errors.Is(err, context.Canceled) {
			e.Hint = ""
		}
		return e
	}
	switch {
	case status.Code == 403 || status.Code == 401 || isDenied(e.Said):
		e.Kind = ErrUnreadable
		if op != "read" && op != "list" && op != "watch" {
			e.Kind = os.ErrPermission
		}
		e.Hint = "the token needs " + need
	case status.Code == 429 || status.Code >= 500:
		e.Hint = "Consul has no leader or is overloaded"
	case status.Code == 413 || strings.Contains(e.Said, "too large"), status.Code >= 400:
		e.Kind = errRefused
	}
	return e
}

// errTokenFile is a token file that could never be read.
var errTokenFile = errors.New("read token file")

// errRefused is a request that Consul calls wrong: a fault of ours, or a limit.
var errRefused = errors.New("refused")

// plain strips the method and address that net/http puts before an error: our own text says what was asked.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
