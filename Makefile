# weft: build, try, test. `make help` lists the targets.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOFLAGS_BUILD = -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
export CGO_ENABLED ?= 0

.PHONY: help build consul demo demo-down test test-long test-kernel test-cni lint bench fuzz clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: ## bin/weft and bin/weft-cni
	@go build $(GOFLAGS_BUILD) -o bin/ ./cmd/weft ./cmd/weft-cni

consul: ## bin/consul: the one on PATH, else built from its Go module (about 4 minutes, once)
	@test/consul/get.sh

demo: build consul ## three hosts, an encrypted and a plain network, a service calling another
	@go build $(GOFLAGS_BUILD) -o bin/weft-demo ./test/demo
	@bin/weft-demo up

demo-down: ## take the demo away
	@bin/weft lab down --name demo

test: build consul ## all tests; as root, else those that need it are counted and named
	@go run ./test/report -- ./...

test-long: build consul ## what takes minutes: preshared keys across WireGuard's rekey
	@WEFT_E2E_LONG=1 go run ./test/report -run 'TestPresharedChange' -- ./test/e2e

test-kernel: consul ## the tests that concern the kernel, in a guest whose kernel has WireGuard
	@go run ./test/kernel

test-cni: build consul ## CNI with cnitool, podman and containerd, which it installs (Debian); as root
	@test/cni/install.sh
	@go run ./test/report -tags cni -run 'CNI|Netns|Runtime' -- ./test/e2e

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt wants changes in:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	@go vet ./...
	@go vet -tags cni ./test/e2e
	@go tool staticcheck ./...

bench: build consul ## figures: attach latency, memory, throughput against named peers
	@go run ./test/bench
	@go run ./test/bench/cni
	@go run ./test/bench/dns

fuzz: ## every fuzz target for FUZZTIME (default 30s) each
	@go run ./test/fuzz -time $(or $(FUZZTIME),30s)

clean: ## remove what was built here
	@rm -rf bin
