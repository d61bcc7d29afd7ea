// Package lab runs several weft hosts on one machine, each in namespaces of its own, to try weft and to test it.
package lab
