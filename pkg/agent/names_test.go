package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/pkg/api"
	"weft/pkg/overlay"
)

func TestServices(t *testing.T) {
	end := func(name, addr string, h overlay.Health, services ...string) overlay.Endpoint {
		return overlay.Endpoint{ID: overlay.EndpointID(name), Name: name, Address: netip.MustParseAddr(addr), Health: h, Services: services}
	}
	s := &overlay.Snapshot{
		Nodes: map[string]overlay.Node{"n1": {Name: "n1"}, "n2": {Name: "n2"}, "gone": {Name: "gone", Left: time.Unix(1, 0)}},
		Networks: map[string]overlay.Network{"a": {Name: "a", ID: "1"}, "b": {Name: "b", ID: "2"},
			"dead": {Name: "dead", ID: "3", Deleted: time.Unix(1, 0)}},
		Endpoints: []overlay.EndpointSet{
			{Node: "n1", Network: "a", NetworkID: "1", Endpoints: []overlay.Endpoint{end("x", "10.0.0.2", "", "web", "api"), end("y", "10.0.0.3", overlay.HealthFailing, "web")}},
			{Node: "n2", Network: "a", NetworkID: "1", Endpoints: []overlay.Endpoint{end("z", "10.0.0.4", overlay.HealthPassing, "web"), end("w", "10.0.0.5", overlay.HealthDraining, "old")}},
			{Node: "gone", Network: "a", NetworkID: "1", Endpoints: []overlay.Endpoint{end("g", "10.0.0.6", "", "web")}},
			{Node: "n1", Network: "b", NetworkID: "2", Endpoints: []overlay.Endpoint{end("q", "10.1.0.2", overlay.HealthFailing, "web"), end("r", "10.1.0.3", overlay.HealthStarting, "web")}},
			{Node: "n1", Network: "dead", NetworkID: "3", Endpoints: []overlay.Endpoint{end("d", "10.2.0.2", "", "web")}},
		},
	}
	type row struct {
		Name, Network, Instances string
		Answered, Nodes          int
	}
	rows := func(all []api.Service) (out []row) {
		for _, s := range all {
			r := row{s.Name, s.Network, "", s.Answered, s.Nodes}
			for _, i := range s.Instances {
				mark := "-"
				if i.Answered {
					mark = "+"
				}
				r.Instances += mark + i.Endpoint + " "
			}
			out = append(out, r)
		}
		return out
	}
	want := []row{{"api", "a", "+x ", 1, 1}, {"old", "a", "-w ", 0, 1}, {"web", "a", "+x -y +z ", 2, 2}, {"web", "b", "+q +r ", 2, 1}}
	if diff := cmp.Diff(want, rows(services(s, nil))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want = []row{{"api", "a", "+x ", 1, 1}, {"old", "a", "-w ", 0, 1}, {"web", "a", "+x -y -z ", 1, 2}, {"web", "b", "+q +r ", 2, 1}}
	if diff := cmp.Diff(want, rows(services(s, map[string]bool{"n2": true}))); diff != "" {
		t.Errorf("with n2 dead (-want +got):\n%s", diff)
	}
}

func TestAskedNames(t *testing.T) {
	var e overlay.LocalEndpoint
	err := askedNames(&e, api.AttachSpec{Aliases: []string{"WWW", "api.example.org"}, Ports: []overlay.Port{{Name: "HTTP", Port: 80}},
		Check: &api.CheckSpec{Check: "tcp:80", Interval: "1s"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"www", "api.example.org"}, e.Aliases); diff != "" || e.Ports[0] != (overlay.Port{Name: "http", Port: 80, Proto: "tcp"}) ||
		e.Health != overlay.HealthStarting || e.Check.Interval != time.Second {
		t.Errorf("%s%+v", diff, e)
	}
	for _, spec := range []api.AttachSpec{
		{Aliases: []string{"a b"}}, {Aliases: []string{"tasks"}}, {Ports: []overlay.Port{{Name: "x", Proto: "sctp", Port: 1}}},
		{Ports: []overlay.Port{{Name: "x", Proto: "tcp"}}}, {Check: &api.CheckSpec{Check: "ping"}},
	} {
		var e overlay.LocalEndpoint
		if err := askedNames(&e, spec); err == nil || api.FromError(err).Code != api.Invalid {
			t.Errorf("%+v is taken: %v", spec, err)
		}
	}
	var none overlay.LocalEndpoint
	if err := askedNames(&none, api.AttachSpec{Check: &api.CheckSpec{Check: "none"}}); err != nil || none.Health != "" {
		t.Errorf("no check: %v, %q", err, none.Health)
	}
}
