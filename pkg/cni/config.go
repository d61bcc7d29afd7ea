package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"weft/pkg/api"
)

// Type is the plugin's name in configurations, and so its file name.
const Type = "weft-cni"

// Settings is the member "weft" of a plugin configuration. All of it may be left out.
type Settings struct {
	// Network is the weft network; empty means WEFT_NETWORK of CNI_ARGS, or else the configuration's own name.
	Network string `json:"network,omitempty"`
	// Socket is the agent's, api.DefaultSocket by default.
	Socket string `json:"socket,omitempty"`
	// Name of the endpoint. A configuration serves many containers, so it is rarely set here.
	Name string `json:"name,omitempty"`
	// Service and Services are the services that every container of this configuration is part of.
	Service  string   `json:"service,omitempty"`
	Services []string `json:"services,omitempty"`
	Aliases  []string `json:"aliases,omitempty"`
	// DNS says whether the result names weft's name server: "weft", the default, or "none".
	DNS string `json:"dns,omitempty"`
	// HostRoute gives the host a route to the container, which the plugin portmap needs behind this one.
	HostRoute bool `json:"hostRoute,omitempty"`
}

// config is what a plugin gets on standard input.
type config struct {
	types.PluginConf
	Weft          json.RawMessage `json:"weft"`
	RuntimeConfig runtimeConfig   `json:"runtimeConfig"`
	Args          struct {
		CNI runtimeConfig `json:"cni"`
	} `json:"args"`

	settings Settings
}

// runtimeConfig is what runtimes fill in for the capabilities of the same names (CONVENTIONS.md of the CNI
// specification, "Dynamic Plugin specific fields").
type runtimeConfig struct {
	IPs     []string            `json:"ips"`
	MAC     string              `json:"mac"`
	Aliases map[string][]string `json:"aliases"` // by name of the network configuration
}

// parseConfig reads a configuration, strictly: a setting that is misspelt must not be taken for one that is absent.
func parseConfig(data []byte) (*config, error) {
	c, err := looseConfig(data)
	if err != nil {
		return nil, err
	}
	if len(c.Weft) > 0 {
		dec := json.NewDecoder(bytes.NewReader(c.Weft))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&Settings{}); err != nil {
			return nil, types.NewError(types.ErrInvalidNetworkConfig,
				fmt.Sprintf("weft: configuration %s, member \"weft\": %s", c.Name, strings.TrimPrefix(err.Error(), "json: ")),
				"known are network, socket, name, service, services, aliases, dns and hostRoute")
		}
	}
	if d := c.settings.DNS; d != "" && d != "weft" && d != "none" {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("weft: configuration %s: dns is %q", c.Name, d), `use "weft" or "none"`)
	}
	return c, nil
}

// looseConfig reads what DEL needs: a container must be deletable also with a configuration that has become wrong.
func looseConfig(data []byte) (*config, error) {
	var c config
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "weft: read network configuration: "+err.Error(), "")
	}
	if len(c.Weft) > 0 {
		if err := json.Unmarshal(c.Weft, &c.settings); err != nil {
			return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("weft: configuration %s, member \"weft\": %v", c.Name, err), "")
		}
	}
	if c.settings.Socket == "" {
		c.settings.Socket = api.DefaultSocket
	}
	return &c, nil
}

// owner marks the endpoints of one network configuration.
func (c *config) owner() string { return "cni/" + c.Name }

// network is the weft network that a container joins. What the operator of the host has set stands before what the job
// asks for.
func (c *config) network(a args) string {
	for _, n := range []string{c.settings.Network, a["WEFT_NETWORK"], c.Name} {
		if n != "" {
			return n
		}
	}
	return ""
}

// address is the one the runtime asks for, "" for any.
func (c *config) address(a args) (string, error) {
	ips := slices.Concat(c.RuntimeConfig.IPs, c.Args.CNI.IPs)
	if len(ips) == 0 && a["IP"] != "" {
		ips = strings.Split(a["IP"], ",")
	}
	switch len(ips) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", types.NewError(types.ErrUnsupportedField, fmt.Sprintf("weft: %d addresses are asked for: %s", len(ips), strings.Join(ips, ", ")),
			"an endpoint has one address: ask for one")
	}
	text, _, _ := strings.Cut(ips[0], "/") // the network knows the prefix length
	if _, err := netip.ParseAddr(text); err != nil {
		return "", types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("weft: address %q is not an IP address", ips[0]), "")
	}
	return text, nil
}

// mac is the one the runtime asks for, "" for any.
func (c *config) mac(a args) string {
	for _, m := range []string{c.RuntimeConfig.MAC, c.Args.CNI.MAC, a["MAC"]} {
		if m != "" {
			return m
		}
	}
	return ""
}
