package overlay

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// maxEndpointID is the longest endpoint id in bytes; Docker's are 64.
const maxEndpointID = 128

// idBytes is how many random bytes stand behind an id that weft makes: of 100,000 ids, two are alike with a
// probability of 2e-5.
const idBytes = 6

// NewNetworkID makes a random id.
func NewNetworkID() NetworkID { return NetworkID(randomHex()) }

// NewEndpointID makes a random id.
func NewEndpointID() EndpointID { return EndpointID(randomHex()) }

// NewMAC makes a random unicast address, 02:xx:xx:xx:xx:xx (locally administered, IEEE 802 section 8.4). Never
// derived from the IP address: an address that moves must not bring another endpoint's old neighbour entries to life.
func NewMAC() MAC {
	m := MAC{2}
	_, _ = rand.Read(m[1:]) // never fails: it ends the process instead
	return m
}

func randomHex() string {
	var b [idBytes]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead
	return hex.EncodeToString(b[:])
}

// Validate checks that id is 12 lower-case hexadecimal digits.
func (id NetworkID) Validate() error {
	if len(id) != 2*idBytes || strings.Trim(string(id), "0123456789abcdef") != "" {
		return fmt.Errorf("network id %.40q is not %d lower-case hexadecimal digits", string(id), 2*idBytes)
	}
	return nil
}

// Validate checks that id is [A-Za-z0-9][A-Za-z0-9_.:-]{0,127}.
func (id EndpointID) Validate() error {
	if len(id) > maxEndpointID || !wordGrammar(string(id), "_.:-") {
		return fmt.Errorf("endpoint id %.40q is not valid: use 1 to %d letters, digits, '_', '.', ':' and '-', beginning with a letter or digit",
			string(id), maxEndpointID)
	}
	return nil
}

// Validate checks that m is the address of one station: neither zero nor a group.
func (m MAC) Validate() error {
	switch {
	case m.IsZero():
		return fmt.Errorf("MAC address is zero")
	case m[0]&1 != 0: // the I/G bit, IEEE 802 section 8.2
		return fmt.Errorf("MAC address %s is a multicast address", m)
	}
	return nil
}
