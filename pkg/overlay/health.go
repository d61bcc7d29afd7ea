package overlay

import "fmt"

// Health is what an endpoint's check says, as its node publishes it: on change only, never periodically.
type Health string

// The states of an endpoint. Others, of a later version, count as passing.
const (
	HealthNone     Health = ""         // it has no check
	HealthStarting Health = "starting" // its check has not passed yet
	HealthPassing  Health = "passing"
	HealthFailing  Health = "failing"
	// HealthDraining takes an endpoint's names away whatever else is there: its address goes soon.
	HealthDraining Health = "draining"
)

// Answered reports whether names lead to an endpoint in this state while others are there.
func (h Health) Answered() bool {
	return h != HealthStarting && h != HealthFailing && h != HealthDraining
}

func (h Health) validate() error {
	if len(h) > 20 || h != "" && !wordGrammar(string(h), "-") {
		return fmt.Errorf("health %.30q is not a word", string(h))
	}
	return nil
}
