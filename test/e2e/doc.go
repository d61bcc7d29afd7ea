// Package e2e tests weft from the outside: whole hosts in a lab, a real Consul, real packets.
//
// The tests need root. The test binary is also the tool that sends and counts packets inside the lab (see tools_test.go),
// so nothing but weft and Consul has to be installed.
package e2e
