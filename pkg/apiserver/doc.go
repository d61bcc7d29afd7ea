// Package apiserver serves the local API of package api over a unix socket, to whoever the kernel says may use it.
package apiserver
