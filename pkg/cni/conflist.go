package cni

import (
	"encoding/json"
	"fmt"

	"weft/pkg/overlay"
)

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
}

// Conflist is a network configuration list named name that puts containers on a network, in version cniVersion of the
// specification ("" is 1.0.0, which all current runtimes read).
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
	out, err := json.MarshalIndent(conflist{CNIVersion: cniVersion, Name: name, Plugins: []conflistFor{
		{Type: Type, Capabilities: map[string]bool{"ips": true, "mac": true, "aliases": true}, Weft: &s},
	}}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write network configuration: %w", err)
	}
	return append(out, '\n'), nil
}
