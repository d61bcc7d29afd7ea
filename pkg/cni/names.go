package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"weft/pkg/overlay"
)

// args are the pairs of CNI_ARGS. Those that weft knows are
//
//	WEFT_NETWORK, WEFT_NAME, WEFT_SERVICE, WEFT_ALIASES    from a job; lists are separated by commas
//	IP, MAC                                                from the runtime
//	K8S_POD_NAME                                           the container's name, from Podman; the pod's, from kubelet
//	NOMAD_JOB_ID, NOMAD_GROUP_NAME, NOMAD_ALLOC_ID         from Nomad
//
// Others are ignored: runtimes add to the list as they please, and IgnoreUnknown is what all of them set.
type args map[string]string

func parseArgs(text string) (args, error) {
	a := args{}
	for pair := range strings.SplitSeq(text, ";") {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("weft: CNI_ARGS: %q is no KEY=VALUE", pair), "")
		}
		a[key] = value
	}
	return a, nil
}

func (a args) list(key string) []string {
	return strings.FieldsFunc(a[key], func(r rune) bool { return r == ',' || r == ' ' })
}

// endpointID is the endpoint that stands for an attachment, the same for the same container id and interface name.
func endpointID(container, ifname string) overlay.EndpointID {
	if id := overlay.EndpointID(container + ":" + ifname); id.Validate() == nil {
		return id
	}
	sum := sha256.Sum256([]byte(container + ":" + ifname))
	return overlay.EndpointID("cni-" + hex.EncodeToString(sum[:20]))
}

// names of an endpoint. Those that a person set stay as they are, for the agent to refuse them if they are not valid;
// those that follow from what the runtime says are made valid, or left out.
type names struct {
	name              string
	services, aliases []string
}

func (c *config) names(a args, container, ifname string) names {
	s := c.settings
	n := names{services: s.Services, aliases: slices.Concat(s.Aliases, a.list("WEFT_ALIASES"))}
	if s.Service != "" {
		n.services = append([]string{s.Service}, n.services...)
	}
	if of := a.list("WEFT_SERVICE"); len(of) > 0 {
		n.services = of
	}
	group := nomadService(a)
	if len(n.services) == 0 && group != "" {
		n.services = []string{group}
	}
	switch {
	case s.Name != "":
		n.name = s.Name
	case a["WEFT_NAME"] != "":
		n.name = a["WEFT_NAME"]
	default:
		n.name = derivedName(a, group, container, ifname)
	}
	for _, given := range []map[string][]string{c.RuntimeConfig.Aliases, c.Args.CNI.Aliases} {
		for _, alias := range given[c.Name] {
			if overlay.ValidateName(overlay.AliasName, alias) == nil {
				n.aliases = append(n.aliases, alias)
			}
		}
	}
	n.services, n.aliases = unique(n.services), unique(n.aliases, n.name)
	return n
}

// derivedName is the container's name as the runtime knows it, else its id.
func derivedName(a args, group, container, ifname string) string {
	if alloc := a["NOMAD_ALLOC_ID"]; group != "" && alloc != "" {
		if n, ok := valid(group + "-" + alloc[:min(8, len(alloc))]); ok {
			return n
		}
	}
	if n, ok := valid(a["K8S_POD_NAME"]); ok {
		return n
	}
	n, ok := valid(container)
	if !ok {
		n = container[:min(12, len(container))] // what runtimes print of a long id; its grammar is ours, but for a last dot
		n = strings.TrimRight(strings.ReplaceAll(n, "..", "--"), ".")
	}
	// A container may be on one network twice; its id says nothing about which is which.
	if with, ok := valid(n + "-" + ifname); ok && ifname != "eth0" {
		return with
	}
	return n
}

// nomadService is <job>-<group>, or the one name that both have. Job ids may hold anything.
func nomadService(a args) string {
	job, group := nomadWord(a["NOMAD_JOB_ID"]), nomadWord(a["NOMAD_GROUP_NAME"])
	s := job + "-" + group
	switch {
	case job == "" || group == "":
		return ""
	case job == group:
		s = job
	}
	s, _ = valid(s)
	return s
}

// nomadWord keeps what may stand in a DNS label.
func nomadWord(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9') {
			return r
		}
		return '-'
	}, s)
	return strings.ToLower(strings.Trim(s, "-"))
}

func valid(name string) (string, bool) {
	if overlay.ValidateName(overlay.EndpointName, name) != nil {
		return "", false
	}
	return name, true
}

// unique drops what stands twice, in whatever case, and what but holds.
func unique(in []string, but ...string) []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range but {
		seen[overlay.CanonicalName(s)] = true
	}
	for _, s := range in {
		if k := overlay.CanonicalName(s); !seen[k] {
			seen[k] = true
			out = append(out, s)
		}
	}
	return out
}
