#!/bin/sh
# A web server and a client on the network my-app, from nothing. As root, on a host where the weft agent runs.
set -eu
weft network create my-app --encrypted
weft cni install my-app
podman run -d --name web --network my-app:alias=front docker.io/library/busybox httpd -f -p 8080
podman run --rm --network my-app docker.io/library/busybox wget -q -O - http://front:8080/
