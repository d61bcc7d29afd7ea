// Package queue keeps the detaches that were asked for while no agent answered, on disk, until an agent has done them.
package queue
