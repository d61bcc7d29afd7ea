package overlay

import (
	"errors"
	"fmt"
	"net/netip"

	"weft/keys"
)

// Bounds of a network's MTU in bytes: what every IPv4 host must take (RFC 791 section 3.1), and the largest packet.
const (
	MinMTU = 576
	MaxMTU = 65535
)

// MinUnderlayMTU in bytes is the least that IPv6 allows (RFC 8200 section 5); with it 1150 are left for an encrypted
// network.
const MinUnderlayMTU = 1280

const (
	maxLabels    = 256 // on a network
	maxLabelText = 1024
	maxText      = 128 // versions, datacenters, ...
	maxKeys      = 8   // generations of a node; two live in normal times
	maxUnderlay  = 16  // addresses of a node
)

// Validate reports what makes this record unusable, as the first problem found, on one line; nil when nothing does.
// It looks at the record alone: whether the VNI is leased or the subnet overlaps another is not asked.
func (n Network) Validate() error {
	if err := n.validate(); err != nil {
		return fmt.Errorf("network record %.63q: %w", n.Name, err)
	}
	return nil
}

func (n Network) validate() error {
	if err := firstError(checkStoredName(NetworkName, n.Name), n.ID.Validate(), checkRevision(n.Revision)); err != nil {
		return err
	}
	if n.VNI < MinVNI || n.VNI > MaxVNI {
		return fmt.Errorf("vni %d is outside %d to %d", n.VNI, MinVNI, MaxVNI)
	}
	if len(n.Subnets) != 1 {
		return fmt.Errorf("%d subnets instead of one", len(n.Subnets))
	}
	if err := checkSubnet(n.Subnets[0]); err != nil {
		return err
	}
	if err := checkHost("gateway", n.Gateway, n.Subnets[0]); err != nil {
		return err
	}
	if n.IPRange != (netip.Prefix{}) {
		if err := checkIPRange(n.IPRange, n.Subnets[0]); err != nil {
			return err
		}
	}
	if n.MTU < MinMTU || n.MTU > MaxMTU {
		return fmt.Errorf("mtu %d is outside %d to %d", n.MTU, MinMTU, MaxMTU)
	}
	if err := checkStoredName(NodeName, n.Signer); err != nil {
		return fmt.Errorf("signer: %w", err)
	}
	if len(n.Replaces) > MaxReplaces {
		return fmt.Errorf("it replaces %d networks, at most %d are kept", len(n.Replaces), MaxReplaces)
	}
	for _, id := range n.Replaces {
		if err := id.Validate(); err != nil || id == n.ID {
			return fmt.Errorf("it replaces %q, which is no other network's id", id)
		}
	}
	return ValidateLabels(n.Labels)
}

// ValidateLabels checks labels of a network: at most 256, keys not empty, keys and values of at most 1024 bytes
// without control characters.
func ValidateLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return fmt.Errorf("%d labels: use at most %d", len(labels), maxLabels)
	}
	for k, v := range labels {
		if k == "" {
			return errors.New("label with an empty key")
		}
		if err := firstError(checkText("label key", k, maxLabelText), checkText("label value", v, maxLabelText)); err != nil {
			return err
		}
	}
	return nil
}

// Validate reports what makes this record unusable, as the first problem found, on one line; nil when nothing does.
func (n Node) Validate() error {
	if err := n.validate(); err != nil {
		return fmt.Errorf("node record %.63q: %w", n.Name, err)
	}
	return nil
}

func (n Node) validate() error {
	if err := firstError(checkStoredName(NodeName, n.Name), checkRevision(n.Revision)); err != nil {
		return err
	}
	if n.Identity.IsZero() {
		return errors.New("identity key is missing")
	}
	if err := n.checkWireGuard(); err != nil {
		return err
	}
	if err := n.checkUnderlay(); err != nil {
		return err
	}
	if n.UnderlayMTU < MinUnderlayMTU || n.UnderlayMTU > MaxMTU {
		return fmt.Errorf("underlay mtu %d is outside %d to %d", n.UnderlayMTU, MinUnderlayMTU, MaxMTU)
	}
	if n.VXLANPort == 0 {
		return errors.New("vxlan port is 0")
	}
	return firstError(
		checkUnicast4("vtep address", n.VTEP),
		checkText("datacenter", n.Datacenter, maxText),
		checkText("version", n.Version, maxText),
		checkText("backend", n.Backend, maxText),
	)
}

func (n Node) checkWireGuard() error {
	if len(n.WireGuard) == 0 || len(n.WireGuard) > maxKeys {
		return fmt.Errorf("%d WireGuard keys instead of 1 to %d", len(n.WireGuard), maxKeys)
	}
	last := 0
	seen := map[any]bool{}
	for _, k := range n.WireGuard {
		switch {
		case k.Generation < 1:
			return fmt.Errorf("WireGuard key generation %d is below 1", k.Generation)
		case k.Generation <= last:
			return fmt.Errorf("WireGuard key generation %d stands after %d: each once, the newest last", k.Generation, last)
		case k.PublicKey.IsZero():
			return fmt.Errorf("WireGuard key of generation %d is zero", k.Generation)
		case k.Port == 0:
			return fmt.Errorf("WireGuard port of generation %d is 0", k.Generation)
		case !k.KEM.IsZero() && len(k.KEM) != keys.KEMSize:
			return fmt.Errorf("KEM key of generation %d has %d bytes instead of %d", k.Generation, len(k.KEM), keys.KEMSize)
		case seen[k.PublicKey] || seen[k.Port]:
			return fmt.Errorf("WireGuard generation %d shares its key or port with an older one", k.Generation)
		}
		last, seen[k.PublicKey], seen[k.Port] = k.Generation, true, true
	}
	return nil
}

func (n Node) checkUnderlay() error {
	if len(n.Underlay) == 0 || len(n.Underlay) > maxUnderlay {
		return fmt.Errorf("%d underlay addresses instead of 1 to %d", len(n.Underlay), maxUnderlay)
	}
	seen := map[netip.Addr]bool{}
	for _, a := range n.Underlay {
		if err := checkUnderlayAddress(a); err != nil {
			return err
		}
		if seen[a] {
			return fmt.Errorf("underlay address %s stands twice", a)
		}
		seen[a] = true
	}
	return nil
}

// checkUnderlayAddress is looser than checkUnicast4: hosts do live on IPv4 link-local addresses. IPv6 ones mean
// nothing on another host.
func checkUnderlayAddress(a netip.Addr) error {
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	switch {
	case !a.IsValid():
		return errors.New("underlay address is missing")
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a == broadcast:
		return fmt.Errorf("underlay address %s is not the address of a host", a)
	case a.Is4In6(), a.Zone() != "", a.Is6() && a.IsLinkLocalUnicast():
		return fmt.Errorf("underlay address %s does not work from other hosts", a)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
