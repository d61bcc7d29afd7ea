// Package reconcile runs the level-triggered loop: compute what is wanted, observe the kernel, apply the difference.
//
// The loop remembers nothing about the kernel between passes. Kicks coalesce; a pass with failures is repeated with
// backoff; one network's failure never stops another (see Execute).
package reconcile
