package cni

import (
	"encoding/json"
	"fmt"

	"weft/pkg/overlay"
)

// ConflistName is the file of a network's configuration. The number puts weft's behind those that an operator numbers
// lower: containerd takes the first by name.
func ConflistName(network string) string { return "50-weft-" + network + ".conflist" }

// conflist is a network configuration list, with the members in the order in which people write them.
type conflist struct {
	CNIVersion string        `json:"cniVersion"`
	Name       string        `json:"name"`
	Plugins    []conflistFor `json:"plugins"`
}

type conflistFor struct {
	Type         string          `json:"type"`
	Capabilities map[string]bool `json:"capabilities,omitempty"`
	Weft         *Settings       `json:"weft,omitempty"`
	SNAT         bool            `json:"snat,omitempty"`
}

// Conflist is a network configuration list named name that puts containers on a network, in version cniVersion of the
// specification ("" is 1.0.0, which all current runtimes read). With s.HostRoute the reference plugin portmap follows,
// for ports of the host.
func Conflist(name, cniVersion string, s Settings) ([]byte, error) {
	if err := overlay.ValidateName(overlay.NetworkName, name); err != nil {
		return nil, err
	}
	if cniVersion == "" {
		cniVersion = "1.0.0"
	}
	known := false
	for _, v := range Versions.SupportedVersions() {
		known = known || v == cniVersion
	}
	if !known {
		return nil, fmt.Errorf("CNI version %q: use one of %v", cniVersion, Versions.SupportedVersions())
	}
	list := conflist{CNIVersion: cniVersion, Name: name, Plugins: []conflistFor{
		{Type: Type, Capabilities: map[string]bool{"ips": true, "mac": true, "aliases": true}, Weft: &s},
	}}
	if s.HostRoute {
		list.Plugins = append(list.Plugins, conflistFor{Type: "portmap", Capabilities: map[string]bool{"portMappings": true}, SNAT: true})
	}
	out, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write network configuration: %w", err)
	}
	return append(out, '\n'), nil
}
