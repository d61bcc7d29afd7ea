package overlay

import (
	"fmt"

	"weft/keys"
)

// KEM is what a node encapsulated to another one, so that both know a secret from which the preshared keys of the pair
// are made: the signed record weft/kem/<to>/<from>. Only From writes it; of two nodes the one whose name sorts first
// does.
type KEM struct {
	From     string         `json:"from"`
	To       string         `json:"to"`
	Secrets  []Encapsulated `json:"secrets"`
	Revision uint64         `json:"revision"`
}

// Encapsulated is the secret of one generation of the pair's WireGuard keys.
type Encapsulated struct {
	Generation int `json:"generation"`
	// FromKey and ToKey are the pair's WireGuard keys.
	FromKey keys.PublicKey `json:"fromKey"`
	ToKey   keys.PublicKey `json:"toKey"`
	// Ciphertext is keys.CiphertextSize bytes.
	Ciphertext []byte `json:"ciphertext"`
}

// Validate reports what makes this record unusable, as the first problem found, on one line; nil when nothing does.
func (k KEM) Validate() error {
	if err := k.validate(); err != nil {
		return fmt.Errorf("key agreement of node %.63q with %.63q: %w", k.From, k.To, err)
	}
	return nil
}

func (k KEM) validate() error {
	if err := firstError(checkStoredName(NodeName, k.From), checkStoredName(NodeName, k.To), checkRevision(k.Revision)); err != nil {
		return err
	}
	if k.From >= k.To {
		return fmt.Errorf("it is the other node's to write")
	}
	if len(k.Secrets) == 0 || len(k.Secrets) > maxKeys {
		return fmt.Errorf("%d generations instead of 1 to %d", len(k.Secrets), maxKeys)
	}
	last := 0
	for _, e := range k.Secrets {
		switch {
		case e.Generation <= last:
			return fmt.Errorf("generation %d stands after %d: each once, the newest last", e.Generation, last)
		case e.FromKey.IsZero() || e.ToKey.IsZero():
			return fmt.Errorf("a WireGuard key of generation %d is zero", e.Generation)
		case len(e.Ciphertext) != keys.CiphertextSize:
			return fmt.Errorf("ciphertext of generation %d has %d bytes instead of %d", e.Generation, len(e.Ciphertext), keys.CiphertextSize)
		}
		last = e.Generation
	}
	return nil
}

// Generation finds the secret of a generation.
func (k KEM) Generation(g int) (Encapsulated, bool) {
	for _, e := range k.Secrets {
		if e.Generation == g {
			return e, true
		}
	}
	return Encapsulated{}, false
}
