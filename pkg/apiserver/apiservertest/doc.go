// Package apiservertest is an agent without a data path: an in-memory backend behind the real API server, for tests.
package apiservertest
