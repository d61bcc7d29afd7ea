package apiserver

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"

	"weft/pkg/api"
)

// action answers one request; the error, if any, becomes an api.Error.
type action func(w http.ResponseWriter, r *http.Request) error

// methods are the actions of one path. Methods are told apart here and not by the mux, whose 405 is not JSON.
type methods map[string]action

// handler is the whole API: a table of paths within the layers that every request passes.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, m := range map[string]methods{
		"/status":                      {"GET": s.getStatus},
		"/networks":                    {"GET": s.listNetworks, "POST": s.createNetwork},
		"/networks/{name}":             {"GET": s.getNetwork, "DELETE": s.removeNetwork},
		"/endpoints":                   {"GET": s.listEndpoints, "POST": s.attach},
		"/endpoints/{ref}":             {"GET": s.getEndpoint, "DELETE": s.detach},
		"/endpoints/{ref}/process":     {"PUT": s.setProcess},
		"/endpoints/{ref}/check":       {"GET": s.checkEndpoint},
		"/endpoints/{ref}/drain":       {"POST": s.drain},
		"/services":                    {"GET": s.listServices},
		"/services/{network}/{name}":   {"GET": s.getService},
		"/dns/{network}/{name}/{type}": {"GET": s.queryName},
		"/nodes":                       {"GET": s.listNodes},
		"/nodes/{name}":                {"GET": s.getNode, "DELETE": s.removeNode},
		"/nodes/{name}/forget":         {"POST": s.forgetNode},
		"/trust":                       {"GET": s.getTrust},
		"/trust/records":               {"POST": s.putTrust},
		"/keys":                        {"GET": s.getKeys},
		"/keys/rotate":                 {"POST": s.rotateKeys},
		"/leave":                       {"POST": s.leave},
		"/plan":                        {"GET": s.getPlan},
	} {
		mux.HandleFunc(api.Prefix+pattern, s.guard(m))
	}
	mux.HandleFunc("/", s.guard(nil))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The mux would answer an unclean path with a redirect in HTML.
		if p := r.URL.EscapedPath(); !strings.HasPrefix(p, "/") || path.Clean(p) != p {
			s.guard(nil)(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// guard is what every request passes: version, peer, method, limits, panics, and errors as JSON.
func (s *Server) guard(m methods) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer s.recover(w, r)
		w.Header().Set(api.VersionHeader, api.Version)
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := s.dispatch(w, r, m); err != nil {
			s.fail(w, r, err)
		}
	}
}

func (s *Server) dispatch(w http.ResponseWriter, r *http.Request, m methods) error {
	if v := r.Header.Get(api.VersionHeader); v != "" && v != api.Version {
		return api.Errorf(api.Invalid, "the client speaks version %q of the API and this agent version %s: use weft and agent of one release", v, api.Version)
	}
	peer, err := s.admit(r)
	if err != nil {
		return err
	}
	if m == nil {
		return api.Errorf(api.NotFound, "no such route: %s %s", r.Method, r.URL.Path)
	}
	act := m[r.Method]
	if act == nil {
		allow := slices.Sorted(maps.Keys(m))
		w.Header().Set("Allow", strings.Join(allow, ", "))
		return methodError{api.Errorf(api.Invalid, "%s takes %s, not %s", r.URL.Path, strings.Join(allow, " or "), r.Method)}
	}
	return act(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, peer)))
}

// methodError is an Invalid that travels as 405.
type methodError struct{ error }

func (e methodError) Unwrap() error { return e.error }

// fail answers with err. Internal errors are logged here, once; the others are the client's to handle.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var gone errGone
	if errors.As(err, &gone) {
		s.cfg.Log.Debug("client left before its answer", "method", r.Method, "path", r.URL.Path, "err", err)
		return
	}
	e := api.FromError(err)
	status := e.Code.HTTPStatus()
	if _, ok := err.(methodError); ok {
		status = http.StatusMethodNotAllowed
	}
	level := s.cfg.Log.Debug
	if e.Code == api.Internal {
		level = s.cfg.Log.Error
	}
	level("request failed", "method", r.Method, "path", r.URL.Path, "code", string(e.Code), "err", e.Message)
	if err := writeJSON(w, status, e); err != nil {
		s.cfg.Log.Debug("error answer not delivered", "path", r.URL.Path, "err", err)
	}
}

// recover keeps one request's panic from ending the agent.
func (s *Server) recover(w http.ResponseWriter, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	s.cfg.Log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
	// When part of an answer is out already this only closes the connection, which the client sees as an error too.
	e := api.Errorf(api.Internal, "the agent has a bug: panic in %s %s; its log has the details", r.Method, r.URL.Path)
	writeJSON(w, e.Code.HTTPStatus(), e) //nolint:errcheck // nobody is left to tell
}
