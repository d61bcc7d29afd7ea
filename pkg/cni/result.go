package cni

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"weft/pkg/api"
)

// previous is the result of the plugins before this one in the chain, nil when it is the first.
func (c *config) previous() (*types100.Result, error) {
	err := version.ParsePrevResult(&c.PluginConf)
	if err == nil && c.PrevResult == nil {
		return nil, nil
	}
	var r *types100.Result
	if err == nil {
		r, err = types100.NewResultFromResult(c.PrevResult)
	}
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "weft: read prevResult: "+err.Error(), "")
	}
	return r, nil
}

// has finds an interface of a namespace in a result, -1 for none.
func has(r *types100.Result, ifname, netns string) int {
	for i, in := range r.Interfaces {
		if in != nil && in.Name == ifname && in.Sandbox != "" && (netns == "" || in.Sandbox == netns) {
			return i
		}
	}
	return -1
}

// result adds an attachment to what the plugins before have made.
func result(prev *types100.Result, a api.Attachment, ifname, sandbox string, withDNS bool) *types100.Result {
	r := &types100.Result{}
	if prev != nil {
		*r = *prev
	}
	r.CNIVersion = types100.ImplementedSpecVersion
	at := len(r.Interfaces)
	r.Interfaces = append(r.Interfaces, &types100.Interface{Name: ifname, Mac: a.MAC, Mtu: a.MTU, Sandbox: sandbox})
	ip := &types100.IPConfig{Interface: &at, Address: ipNet(a.Address)}
	if a.DefaultRoute {
		ip.Gateway = a.Gateway.AsSlice()
		r.Routes = append(r.Routes, &types.Route{Dst: ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0)), GW: a.Gateway.AsSlice()})
	}
	r.IPs = append(r.IPs, ip)
	if withDNS {
		var servers []string
		for _, s := range a.DNS {
			servers = append(servers, s.String())
		}
		r.DNS.Nameservers = append(servers, r.DNS.Nameservers...) // ours knows both kinds of names
	}
	return r
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// compare says how an endpoint differs from what ADD returned for it.
func compare(prev *types100.Result, e api.Endpoint, ifname, netns string) (problems []string) {
	at := has(prev, ifname, netns)
	if at < 0 {
		return []string{fmt.Sprintf("prevResult has no interface %s in %s", ifname, netns)}
	}
	if mac := prev.Interfaces[at].Mac; mac != "" && mac != e.MAC {
		problems = append(problems, fmt.Sprintf("MAC address is %s, not %s as ADD returned", e.MAC, mac))
	}
	for _, ip := range prev.IPs {
		if ip.Interface == nil || *ip.Interface != at {
			continue
		}
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok && a.Unmap() == e.Address {
			return problems
		}
	}
	return append(problems, fmt.Sprintf("address %s is not the one that ADD returned", e.Address))
}
