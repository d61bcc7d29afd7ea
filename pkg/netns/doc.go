// Package netns makes, references and enters network namespaces; no other package calls setns.
package netns
