package ipamtest_test

import (
	"testing"

	"weft/pkg/ipam"
	"weft/pkg/ipam/ipamtest"
)

func TestStore(t *testing.T) {
	ipamtest.Conformance(t, func(*testing.T) ipam.Store { return &ipamtest.Store{} })
}
