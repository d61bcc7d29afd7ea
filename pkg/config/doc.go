// Package config reads the agent's settings from defaults, files, the environment and flags.
package config
