package cni

import (
	"context"
	"errors"
	"os"

	"github.com/containernetworking/cni/pkg/types"

	"weft/pkg/api"
	"weft/pkg/apiclient"
)

// Codes of this plugin, from 100 on as the specification says.
const (
	CodeExists    uint = 100 // the attachment, its name or its address is there already
	CodeExhausted uint = 101 // the network has no free address
	CodeDamaged   uint = 102 // CHECK found a difference
)

// cniError gives err, of an exchange with the agent, its CNI error code. The message says what is wrong, the details
// what to do, where the message does not.
func cniError(what string, err error) *types.Error {
	var given *types.Error
	if errors.As(err, &given) {
		return given
	}
	e := types.NewError(types.ErrInternal, "weft: "+what+": "+err.Error(), "")
	var a *api.Error
	switch {
	case errors.As(err, &a):
		e.Code, e.Details = codeOf(a.Code)
	case errors.Is(err, apiclient.ErrNoAgent), errors.Is(err, context.DeadlineExceeded):
		e.Code = types.ErrTryAgainLater
	case errors.Is(err, os.ErrPermission):
		e.Code = types.ErrIOFailure
	}
	return e
}

func codeOf(c api.Code) (code uint, details string) {
	switch c {
	case api.Invalid:
		return types.ErrInvalidNetworkConfig, "change the network configuration or the job's arguments"
	case api.NotFound:
		return types.ErrInvalidNetworkConfig, ""
	case api.Conflict:
		return CodeExists, ""
	case api.Exhausted:
		return CodeExhausted, "remove containers, or make a network with a larger subnet"
	case api.Unavailable:
		return types.ErrTryAgainLater, "see `weft status` on this host"
	case api.Forbidden:
		return types.ErrIOFailure, "the plugin must run as root"
	}
	return types.ErrInternal, "see the log of the weft agent on this host"
}
