// Package wireguard is one small interface over kernel WireGuard and the userspace engine.
package wireguard
