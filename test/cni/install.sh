#!/bin/sh
# Installs what `make test-cni` needs, where it is missing: podman, containerd with ctr, runc and a static busybox from
# Debian or a relative of it, and cnitool at bin/cnitool, built from the module in tools/. Takes no arguments.
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
bin=$here/../../bin

missing=
for pair in podman:podman containerd:containerd ctr:containerd runc:runc busybox:busybox-static; do
	command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
if [ -n "$missing" ]; then
	command -v apt-get >/dev/null 2>&1 || {
		echo "test-cni: install these and try again:$missing" >&2
		exit 1
	}
	echo "test-cni: installing$missing" >&2
	# RUNLEVEL=1 keeps Debian's packages from starting their services (invoke-rc.d(8)).
	export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
	apt-get update -qq
	# shellcheck disable=SC2086 # a list
	apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

if ! [ -x "$bin/cnitool" ]; then
	mkdir -p "$bin"
	cd "$here/tools"
	CGO_ENABLED=0 GOWORK=off go build -mod=readonly -trimpath -ldflags '-s -w' -o "$bin/cnitool" github.com/containernetworking/cni/cnitool
fi
