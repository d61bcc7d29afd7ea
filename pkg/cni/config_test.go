package cni

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/pkg/api"
)

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestSpec: what runtimes say becomes what the agent is asked.
func TestSpec(t *testing.T) {
	const nomad = "IgnoreUnknown=true;NOMAD_REGION=global;NOMAD_NAMESPACE=default;NOMAD_ALLOC_ID=7d0a2a9e-8c4e-4f1e-9a57-000000000000;"
	long := strings.Repeat("0f", 32)
	for _, tt := range []struct {
		name, config, args, container, ifname string
		want                                  api.AttachSpec // without what is the same in all
	}{
		{name: "nothing but a name", want: api.AttachSpec{Network: "conf", Name: "c1"}},
		{name: "network from a job", args: "WEFT_NETWORK=n2", want: api.AttachSpec{Network: "n2", Name: "c1"}},
		{name: "the host's operator decides", config: `"weft":{"network":"n1"}`, args: "WEFT_NETWORK=n2", want: api.AttachSpec{Network: "n1", Name: "c1"}},
		{name: "podman", args: "IgnoreUnknown=1;K8S_POD_NAME=web",
			config: `"runtimeConfig":{"ips":["10.0.0.9/24"],"mac":"02:00:00:00:00:09","aliases":{"conf":["0f0f0f0f0f0f","front","WEB"],"else":["no"]}}`,
			want:   api.AttachSpec{Network: "conf", Name: "web", Address: "10.0.0.9", MAC: "02:00:00:00:00:09", Aliases: []string{"0f0f0f0f0f0f", "front"}}},
		{name: "args of the configuration", config: `"args":{"cni":{"ips":["10.0.0.9"],"mac":"02:00:00:00:00:09"}}`,
			want: api.AttachSpec{Network: "conf", Name: "c1", Address: "10.0.0.9", MAC: "02:00:00:00:00:09"}},
		{name: "old style address", args: "IP=10.0.0.9;MAC=02:00:00:00:00:09",
			want: api.AttachSpec{Network: "conf", Name: "c1", Address: "10.0.0.9", MAC: "02:00:00:00:00:09"}},
		{name: "nomad", args: nomad + "NOMAD_JOB_ID=shop;NOMAD_GROUP_NAME=api", want: api.AttachSpec{Network: "conf", Name: "shop-api-7d0a2a9e", Services: []string{"shop-api"}}},
		{name: "nomad, one name for both", args: nomad + "NOMAD_JOB_ID=web;NOMAD_GROUP_NAME=web", want: api.AttachSpec{Network: "conf", Name: "web-7d0a2a9e", Services: []string{"web"}}},
		{name: "nomad, odd job", args: nomad + "NOMAD_JOB_ID=Shop/periodic-1700;NOMAD_GROUP_NAME=a b", want: api.AttachSpec{Network: "conf", Name: "shop-periodic-1700-a-b-7d0a2a9e", Services: []string{"shop-periodic-1700-a-b"}}},
		{name: "nomad, job without a usable name", args: nomad + "NOMAD_JOB_ID=***;NOMAD_GROUP_NAME=web", want: api.AttachSpec{Network: "conf", Name: "c1"}},
		{name: "a job's own words", args: nomad + "NOMAD_JOB_ID=shop;NOMAD_GROUP_NAME=api;WEFT_SERVICE=api,all;WEFT_ALIASES=old-api;WEFT_NAME=a-1",
			want: api.AttachSpec{Network: "conf", Name: "a-1", Services: []string{"api", "all"}, Aliases: []string{"old-api"}}},
		{name: "services of the configuration", config: `"weft":{"service":"a","services":["b","A"],"aliases":["x"],"name":"n"}`,
			want: api.AttachSpec{Network: "conf", Name: "n", Services: []string{"a", "b"}, Aliases: []string{"x"}}},
		{name: "long container id", container: long, want: api.AttachSpec{Network: "conf", Name: "0f0f0f0f0f0f"}},
		{name: "second interface", container: long, ifname: "net1", want: api.AttachSpec{Network: "conf", Name: "0f0f0f0f0f0f-net1"}},
		{name: "pod name that is none", args: "K8S_POD_NAME=a/b", want: api.AttachSpec{Network: "conf", Name: "c1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := `{"cniVersion":"1.0.0","name":"conf","type":"weft-cni"`
			if tt.config != "" {
				text += "," + tt.config
			}
			c, err := parseConfig([]byte(text + "}"))
			if err != nil {
				t.Fatal(err)
			}
			a, err := parseArgs(tt.args)
			if err != nil {
				t.Fatal(err)
			}
			cmd := newHostless(tt.container, tt.ifname)
			got, err := c.spec(a, cmd)
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			want.ID, want.IfName, want.NetNS, want.Owner, want.Exclusive = cmd.ContainerID+":"+cmd.IfName, cmd.IfName, cmd.Netns, "cni/conf", true
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
			if err := got.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	for _, tt := range []struct {
		config string
		code   uint
		text   string
	}{
		{`{`, 6, "unexpected end"},
		{`{"name":"conf","weft":{"netwrok":"n"}}`, 7, `unknown field "netwrok"`},
		{`{"name":"conf","weft":{"network":7}}`, 6, "network"},
		{`{"name":"conf","weft":{"dns":"maybe"}}`, 7, `"none"`},
	} {
		_, err := parseConfig([]byte(tt.config))
		wantError(t, err, tt.code, tt.text)
	}
	if _, err := looseConfig([]byte(`{"name":"conf","weft":{"netwrok":"n"}}`)); err != nil {
		t.Errorf("DEL does not work with a misspelt setting: %v", err)
	}
	_, err := parseArgs("A=1;B")
	wantError(t, err, 4, `"B"`)
	c, err := parseConfig([]byte(`{"name":"conf","runtimeConfig":{"ips":["x"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.address(nil)
	wantError(t, err, 7, `"x"`)
	cmd := newHostless("c1", "eth0")
	cmd.Netns = "relative"
	_, err = c.spec(nil, cmd)
	wantError(t, err, 4, "CNI_NETNS")
}

func TestEndpointID(t *testing.T) {
	seen := map[string]bool{}
	for _, x := range [][2]string{{"c1", "eth0"}, {"c1", "eth1"}, {"c2", "eth0"}, {strings.Repeat("a", 200), "eth0"}, {strings.Repeat("a", 200), "eth1"}, {"c1", "eth@1"}, {"c1", "eth+1"}} {
		id := endpointID(x[0], x[1])
		if err := id.Validate(); err != nil || seen[string(id)] || id != endpointID(x[0], x[1]) {
			t.Errorf("%v: %s, %v", x, id, err)
		}
		seen[string(id)] = true
	}
	if id := endpointID("c1", "eth0"); id != "c1:eth0" {
		t.Errorf("%s: people cannot see what it is", id)
	}
}

// TestConflist: what install writes is what the plugin reads.
func TestConflist(t *testing.T) {
	data, err := Conflist("net1", "", Settings{Network: "net1", Services: []string{"web"}})
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		CNIVersion, Name string
		Plugins          []json.RawMessage
	}
	if err := json.Unmarshal(data, &list); err != nil || list.CNIVersion != "1.0.0" || list.Name != "net1" || len(list.Plugins) != 1 {
		t.Fatalf("%s: %v", data, err)
	}
	c, err := parseConfig(list.Plugins[0])
	if err != nil || c.Type != Type || c.settings.Network != "net1" || !c.Capabilities["ips"] {
		t.Errorf("%+v, %v", c, err)
	}
	data, err = Conflist("net1", "", Settings{Network: "net1", HostRoute: true})
	if err != nil || !strings.Contains(string(data), `"portmap"`) || !strings.Contains(string(data), `"hostRoute": true`) {
		t.Errorf("with ports of the host: %s, %v", data, err)
	}
	if _, err := Conflist("../x", "", Settings{}); err == nil {
		t.Error("a name that is a path is taken")
	}
	if _, err := Conflist("net1", "0.3.1", Settings{}); err == nil || !strings.Contains(err.Error(), "1.1.0") {
		t.Errorf("an unknown version: %v", err)
	}
}

// FuzzConfig: whatever a runtime sends, the agent is asked something valid, or the runtime gets an error.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"name":"conf","weft":{"network":"n","service":"a"},"runtimeConfig":{"ips":["10.0.0.1/8"],"aliases":{"conf":["x"]}}}`), "K8S_POD_NAME=web;IP=10.0.0.1", "c1", "eth0")
	f.Add([]byte(`{"name":"conf","prevResult":{"cniVersion":"1.0.0"}}`), "NOMAD_JOB_ID=a;NOMAD_GROUP_NAME=b;NOMAD_ALLOC_ID=c", "a..b.", "eth@")
	f.Add([]byte(`[]`), "=", "", "")
	f.Fuzz(func(t *testing.T, data []byte, text, container, ifname string) {
		c, err := parseConfig(data)
		if err != nil {
			return
		}
		a, err := parseArgs(text)
		if err != nil {
			return
		}
		cmd := newHostless(container, ifname)
		spec, err := c.spec(a, cmd)
		if err != nil {
			return
		}
		if spec.Name == "" || spec.ID == "" {
			t.Errorf("no name or id: %+v", spec)
		}
		_, _ = c.previous()
	})
}
