#!/bin/sh
# A container on the network my-app through ctr. As root, on a host where the weft agent runs.
set -eu
weft cni install my-app
# ctr writes no resolv.conf: give it one that leads to the network's gateway, where weft answers for names.
gateway=$(weft network inspect my-app -o json | sed -n 's/^  "gateway": "\(.*\)",$/\1/p')
echo "nameserver $gateway" >/run/weft-resolv.conf
ctr image pull docker.io/library/busybox:latest
ctr run --rm --cni --mount type=bind,src=/run/weft-resolv.conf,dst=/etc/resolv.conf,options=rbind:ro \
	docker.io/library/busybox:latest box ping -c 1 web
