package apiserver

import (
	"context"
	"net/http"
	"slices"
	"time"

	"weft/pkg/api"
)

// undoTimeout bounds the detach of an endpoint whose client left, after its request's context ended. Monotonic clock.
const undoTimeout = 30 * time.Second

func (s *Server) getStatus(w http.ResponseWriter, r *http.Request) error {
	st, err := s.cfg.System.Status(r.Context())
	if err != nil {
		return err
	}
	st.Peers, st.Networks, st.Problems = list(st.Peers), list(st.Networks), list(st.Problems)
	if st.Drops == nil {
		st.Drops = map[string]uint64{}
	}
	return writeJSON(w, http.StatusOK, st)
}

func (s *Server) listNetworks(w http.ResponseWriter, r *http.Request) error {
	ns, err := s.cfg.Networks.Networks(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(ns))
}

func (s *Server) getNetwork(w http.ResponseWriter, r *http.Request) error {
	n, err := s.cfg.Networks.Network(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	n.Subnets, n.Endpoints = list(n.Subnets), list(n.Endpoints)
	return writeJSON(w, http.StatusOK, n)
}

func (s *Server) createNetwork(w http.ResponseWriter, r *http.Request) error {
	var spec api.NetworkSpec
	if err := decode(r.Body, &spec); err != nil {
		return err
	}
	if err := spec.Validate(); err != nil {
		return err
	}
	n, err := s.cfg.Networks.CreateNetwork(r.Context(), spec)
	if err != nil {
		return err
	}
	n.Subnets, n.Endpoints = list(n.Subnets), list(n.Endpoints)
	return writeJSON(w, http.StatusCreated, n)
}

func (s *Server) removeNetwork(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.cfg.Networks.RemoveNetwork(r.Context(), r.PathValue("name")))
}

func (s *Server) listEndpoints(w http.ResponseWriter, r *http.Request) error {
	es, err := s.cfg.Endpoints.Endpoints(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(es))
}

func (s *Server) getEndpoint(w http.ResponseWriter, r *http.Request) error {
	e, err := s.cfg.Endpoints.Endpoint(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, e)
}

// attach answers when the endpoint works. A client that left meanwhile cannot learn an id that weft chose, so nobody
// would ever detach that endpoint: it is taken back. With an id of the client's choice a repeated attach may have
// found a living endpoint, so that one stays, unless the attach was exclusive.
func (s *Server) attach(w http.ResponseWriter, r *http.Request) error {
	var spec api.AttachSpec
	if err := decode(r.Body, &spec); err != nil {
		return err
	}
	if err := spec.Validate(); err != nil {
		return err
	}
	peer := r.Context().Value(peerKey{}).(Peer)
	a, err := s.cfg.Endpoints.Attach(r.Context(), spec, peer)
	if err != nil {
		return err
	}
	a.DNS = list(a.DNS)
	err = r.Context().Err()
	if err == nil {
		err = writeJSON(w, http.StatusCreated, a)
	}
	if err != nil && (spec.ID == "" || spec.Exclusive) {
		s.undo(r.Context(), string(a.ID))
	}
	return err
}

func (s *Server) undo(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := s.cfg.Endpoints.Detach(ctx, id); err != nil {
		s.cfg.Log.Error("endpoint stays although its client left", "endpoint", id, "err", err)
		return
	}
	s.cfg.Log.Info("endpoint taken back: its client left during attach", "endpoint", id)
}

func (s *Server) detach(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.cfg.Endpoints.Detach(r.Context(), r.PathValue("ref")))
}

func (s *Server) checkEndpoint(w http.ResponseWriter, r *http.Request) error {
	c, err := s.cfg.Checks.CheckEndpoint(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	c.Problems = list(c.Problems)
	return writeJSON(w, http.StatusOK, c)
}

func (s *Server) setProcess(w http.ResponseWriter, r *http.Request) error {
	var p api.Process
	if err := decode(r.Body, &p); err != nil {
		return err
	}
	if err := p.Validate(); err != nil {
		return err
	}
	return done(w, s.cfg.Processes.SetProcess(r.Context(), r.PathValue("ref"), p))
}

func (s *Server) drain(w http.ResponseWriter, r *http.Request) error {
	var spec api.DrainSpec
	if err := decode(r.Body, &spec); err != nil {
		return err
	}
	return done(w, s.cfg.Names.Drain(r.Context(), r.PathValue("ref"), spec))
}

func (s *Server) listServices(w http.ResponseWriter, r *http.Request) error {
	all, err := s.cfg.Names.Services(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(all))
}

func (s *Server) getService(w http.ResponseWriter, r *http.Request) error {
	svc, err := s.cfg.Names.Service(r.Context(), r.PathValue("network"), r.PathValue("name"))
	if err != nil {
		return err
	}
	svc.Instances = list(svc.Instances)
	return writeJSON(w, http.StatusOK, svc)
}

func (s *Server) queryName(w http.ResponseWriter, r *http.Request) error {
	a, err := s.cfg.Names.QueryName(r.Context(), r.PathValue("network"), r.PathValue("name"), r.PathValue("type"))
	if err != nil {
		return err
	}
	a.Answer, a.Why = list(a.Answer), list(a.Why)
	return writeJSON(w, http.StatusOK, a)
}

func (s *Server) listNodes(w http.ResponseWriter, r *http.Request) error {
	ns, err := s.cfg.Nodes.Nodes(r.Context())
	if err != nil {
		return err
	}
	ns = slices.Clone(ns) // the backend's own may be shared
	for i := range ns {
		ns[i].Underlay, ns[i].WireGuard = list(ns[i].Underlay), list(ns[i].WireGuard)
	}
	return writeJSON(w, http.StatusOK, list(ns))
}

func (s *Server) getNode(w http.ResponseWriter, r *http.Request) error {
	n, err := s.cfg.Nodes.Node(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	n.Underlay, n.WireGuard = list(n.Underlay), list(n.WireGuard)
	return writeJSON(w, http.StatusOK, n)
}

func (s *Server) removeNode(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.cfg.Nodes.RemoveNode(r.Context(), r.PathValue("name")))
}

func (s *Server) getKeys(w http.ResponseWriter, r *http.Request) error {
	k, err := s.cfg.Keys.Keys(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, k)
}

func (s *Server) rotateKeys(w http.ResponseWriter, r *http.Request) error {
	k, err := s.cfg.Keys.RotateKeys(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, k)
}

func (s *Server) getTrust(w http.ResponseWriter, r *http.Request) error {
	t, err := s.cfg.Trust.Trust(r.Context())
	if err != nil {
		return err
	}
	t.Signers, t.Nodes, t.Tokens = list(t.Signers), list(t.Nodes), list(t.Tokens)
	return writeJSON(w, http.StatusOK, t)
}

func (s *Server) putTrust(w http.ResponseWriter, r *http.Request) error {
	var rec api.TrustRecord
	if err := decode(r.Body, &rec); err != nil {
		return err
	}
	return done(w, s.cfg.Trust.PutTrust(r.Context(), rec))
}

func (s *Server) forgetNode(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.cfg.Trust.ForgetNode(r.Context(), r.PathValue("name")))
}

func (s *Server) leave(w http.ResponseWriter, r *http.Request) error {
	var spec api.LeaveSpec
	if err := decode(r.Body, &spec); err != nil {
		return err
	}
	return done(w, s.cfg.System.Leave(r.Context(), spec))
}

func (s *Server) getPlan(w http.ResponseWriter, r *http.Request) error {
	text, err := s.cfg.System.Plan(r.Context())
	if err != nil {
		return err
	}
	return writeBytes(w, http.StatusOK, "text/plain; charset=utf-8", []byte(text))
}

// done answers a request that has nothing to return.
func done(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// list makes nil an empty list, which JSON shows as [] and not as null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
