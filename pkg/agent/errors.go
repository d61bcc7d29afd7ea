package agent

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"weft/consul"
	"weft/pkg/api"
	"weft/pkg/ipam"
)

func apiErr(code api.Code, format string, args ...any) error {
	return &api.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// poolErr gives an allocation error its code.
func poolErr(err error) error {
	var full *ipam.ExhaustedError
	switch {
	case errors.As(err, &full):
		return apiErr(api.Exhausted, "%v", err)
	case errors.Is(err, os.ErrExist):
		return apiErr(api.Conflict, "%v", err)
	case errors.Is(err, ipam.ErrUnusable):
		return apiErr(api.Invalid, "%v", err)
	}
	return consulErr(err)
}

// consulErr gives an error from Consul its code.
func consulErr(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, consul.ErrUnavailable), errors.Is(err, consul.ErrUnreadable):
		return apiErr(api.Unavailable, "%v", err)
	}
	return err
}

// keyedMutex lets one at a time work on a key; others are refused, not queued. The zero value is ready.
type keyedMutex struct {
	mu   sync.Mutex
	busy map[string]bool
}

func (k *keyedMutex) lock(key string) (unlock func(), ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.busy[key] {
		return nil, false
	}
	if k.busy == nil {
		k.busy = map[string]bool{}
	}
	k.busy[key] = true
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.busy, key)
	}, true
}
