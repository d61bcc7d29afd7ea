package overlay

import (
	"errors"
	"fmt"
	"net/netip"
)

// maxNames bounds the services, the aliases and the ports of one endpoint.
const maxNames = 64

// Validate reports what makes this record unusable, as the first problem found, on one line; nil when nothing does.
// It looks at the record alone; ValidateOn compares it with its network.
func (s EndpointSet) Validate() error {
	if err := s.validate(); err != nil {
		return fmt.Errorf("endpoint record of node %.63q on network %.63q: %w", s.Node, s.Network, err)
	}
	return nil
}

func (s EndpointSet) validate() error {
	if err := firstError(checkStoredName(NodeName, s.Node), checkStoredName(NetworkName, s.Network),
		s.NetworkID.Validate(), checkRevision(s.Revision)); err != nil {
		return err
	}
	if s.Router != (Router{}) || len(s.Endpoints) > 0 { // who is not on the network needs no router
		if err := s.Router.validate(); err != nil {
			return err
		}
	}
	ids := map[EndpointID]bool{}
	addresses := map[netip.Addr]bool{}
	macs := map[MAC]bool{s.Router.MAC: true}
	for _, e := range s.Endpoints {
		if err := e.Validate(); err != nil {
			return err
		}
		switch {
		case ids[e.ID]:
			return fmt.Errorf("endpoint id %q stands twice", e.ID)
		case addresses[e.Address]:
			return fmt.Errorf("endpoint address %s stands twice", e.Address)
		case macs[e.MAC]:
			return fmt.Errorf("MAC address %s stands twice", e.MAC)
		}
		ids[e.ID], addresses[e.Address], macs[e.MAC] = true, true, true
	}
	return nil
}

// ValidateOn checks a set that Validate takes against the network it speaks of, which Validate takes too: the same
// network, and every endpoint's address inside the subnet and free for endpoints.
func (s EndpointSet) ValidateOn(n Network) error {
	wrap := func(err error) error {
		return fmt.Errorf("endpoint record of node %.63q on network %.63q: %w", s.Node, s.Network, err)
	}
	if s.Network != n.Name || s.NetworkID != n.ID {
		return wrap(fmt.Errorf("it speaks of network id %s, not of %s", s.NetworkID, n.ID))
	}
	for _, e := range s.Endpoints {
		if err := checkHost("endpoint address", e.Address, n.Subnet()); err != nil {
			return wrap(err)
		}
		if e.Address == n.Gateway {
			return wrap(fmt.Errorf("endpoint address %s is the gateway's", e.Address))
		}
	}
	return nil
}

func (r Router) validate() error {
	if err := r.MAC.Validate(); err != nil {
		return fmt.Errorf("router: %w", err)
	}
	if r.Address != r.MAC.LinkLocal() {
		return fmt.Errorf("router address %s is not %s, which belongs to its MAC address", r.Address, r.MAC.LinkLocal())
	}
	return nil
}

// Validate reports what makes this endpoint unusable, as the first problem found, on one line.
func (e Endpoint) Validate() error {
	if err := e.ID.Validate(); err != nil {
		return err
	}
	if err := e.validate(); err != nil {
		return fmt.Errorf("endpoint %s: %w", e.ID, err)
	}
	return nil
}

func (e Endpoint) validate() error {
	if err := firstError(checkStoredName(EndpointName, e.Name), checkUnicast4("address", e.Address), e.MAC.Validate(), e.Health.validate()); err != nil {
		return err
	}
	if max(len(e.Services), len(e.Aliases), len(e.Ports)) > maxNames {
		return fmt.Errorf("more than %d services, aliases or ports", maxNames)
	}
	for _, s := range e.Services {
		if err := checkStoredName(ServiceName, s); err != nil {
			return err
		}
	}
	for _, a := range e.Aliases {
		if err := checkStoredName(AliasName, a); err != nil {
			return err
		}
	}
	return checkPorts(e.Ports)
}

func checkPorts(ports []Port) error {
	type key struct{ name, proto string }
	seen := map[key]bool{}
	for _, p := range ports {
		if err := checkStoredName(PortName, p.Name); err != nil {
			return err
		}
		k := key{p.Name, p.Proto}
		switch {
		case p.Proto != "tcp" && p.Proto != "udp":
			return fmt.Errorf("port %s: protocol %.20q is neither tcp nor udp", p.Name, p.Proto)
		case p.Port == 0:
			return errors.New("port " + p.Name + " is 0")
		case seen[k]:
			return fmt.Errorf("port %s/%s stands twice", p.Name, p.Proto)
		}
		seen[k] = true
	}
	return nil
}
