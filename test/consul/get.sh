#!/bin/sh
# Puts a Consul binary at bin/consul of this repository, for the tests:
#   1. bin/consul itself, where it is there already and runs;
#   2. else a link to the consul on PATH;
#   3. else a copy of what an earlier run built and kept in the user's cache
#      ($XDG_CACHE_HOME or ~/.cache, weft/consul-VERSION);
#   4. else one built from this folder's go.mod, in about four minutes on two
#      cores, and kept in that cache.
# Takes no arguments. Exits 0 with a bin/consul that runs; else 1, with one line
# that says why.
set -u

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1
bin=$(CDPATH= cd -- "$here/../.." && pwd)/bin
dest=$bin/consul
pkg=github.com/hashicorp/consul
tmp=
pid=
tty=
if [ -t 2 ]; then tty=1; fi

say() { printf 'consul: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

cleanup() {
	if [ -n "$pid" ] && [ -n "$tty" ]; then echo >&2; fi
	if [ -n "$pid" ]; then kill "$pid" 2>/dev/null; fi
	if [ -n "$tmp" ]; then rm -rf "$tmp" 2>/dev/null; fi
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# runs FILE: is it a Consul that runs on this machine?
runs() { [ -f "$1" ] && [ -x "$1" ] && "$1" version >/dev/null 2>&1; }
# version_of FILE: the first line of what its version command says.
version_of() { "$1" version 2>/dev/null | sed -n 1p; }

if runs "$dest"; then exit 0; fi
if [ -d "$dest" ]; then die "$dest is a folder; remove it"; fi
err=$(mkdir -p "$bin" 2>&1) || die "$err"
# Everything is made in here, on bin's own file system, and then renamed.
tmp=$(mktemp -d "$bin/.consul.XXXXXX" 2>/dev/null) || die "cannot write in $bin"

# install_tmp: put what is at $tmp/consul in place, at once.
install_tmp() { err=$(mv -f "$tmp/consul" "$dest" 2>&1) || die "$err"; }

found=$(command -v consul 2>/dev/null) || found=
case $found in
/*) ;;
*/*) found=$PWD/$found ;;
*) found= ;; # an alias or a function: not a file
esac
if [ -n "$found" ] && [ "$found" != "$dest" ] && runs "$found"; then
	err=$(ln -s "$found" "$tmp/consul" 2>&1) || die "$err"
	install_tmp
	say "using $found ($(version_of "$found"))"
	exit 0
fi

version=$(sed -n "s|^.*$pkg v\([0-9][^ ]*\).*|\1|p" "$here/go.mod" | sed -n 1p)
[ -n "$version" ] || die "no version of $pkg in $here/go.mod"

cache=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
cached=
if [ -n "$cache" ]; then cached=$cache/weft/consul-$version; fi
if [ -n "$cached" ] && runs "$cached"; then
	err=$(cp "$cached" "$tmp/consul" 2>&1) || die "$err"
	install_tmp
	say "copied from $cached ($(version_of "$dest"))"
	exit 0
fi

command -v go >/dev/null 2>&1 ||
	die "no consul on PATH, and no go to build it with: install either"

log=$bin/consul-build.log

# show TEXT: on a terminal, the line in place of the last; else a line.
show() {
	if [ -n "$tty" ]; then printf '\r\033[Kconsul: %s' "$1" >&2; else say "$1"; fi
}

# watch STATUS-COMMAND COMMAND...: run the command with its error output in the
# log and its output in $tmp/out, and show every so often how far it is.
watch() {
	status=$1
	shift
	every=10
	if [ -n "$tty" ]; then every=1; fi
	start=$(date +%s)
	shown=$start
	"$@" >"$tmp/out" 2>"$log" &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		sleep 1
		now=$(date +%s)
		if [ $((now - shown)) -ge $every ]; then
			show "$((now - start)) s, $($status)"
			shown=$now
		fi
	done
	wait "$pid"
	code=$?
	pid=
	if [ -n "$tty" ]; then printf '\r\033[K' >&2; fi
	if [ $code -ne 0 ]; then
		# The first line that tells of a fault, and no package or download.
		why=$(grep ' ' "$log" | grep -v -e '^go: downloading ' -e '^# ' | sed -n 1p)
		die "building Consul $version failed: ${why:-go ended with code $code} (all of it: $log)"
	fi
}

downloading() { printf '%s modules downloaded' "$(grep -c '^go: downloading ' "$log")"; }
compiling() {
	if [ "$(tail -n 1 "$log")" = "$pkg" ]; then
		printf 'linking'
	else
		printf '%s packages compiled, of %s at most' "$(grep -vc ' ' "$log")" "$total"
	fi
}

# This folder's module alone, for this machine, whatever go.work there is above it.
cd "$here" || exit 1
err=$(mkdir "$tmp/work" 2>&1) || die "$err"
export CGO_ENABLED=0 GOWORK=off GOTMPDIR="$tmp/work"

say "building Consul $version with $(go env GOVERSION): about four minutes on two cores, this once"
begin=$(date +%s)
watch downloading go list -mod=readonly -deps "$pkg"
total=$(grep -c . "$tmp/out")
watch compiling go build -mod=readonly -buildvcs=false -trimpath -ldflags='-s -w' -v -o "$tmp/consul" "$pkg"
runs "$tmp/consul" || die "Consul $version was built, but does not run here"
install_tmp
rm -f "$log"
say "built $dest in $(($(date +%s) - begin)) s ($(version_of "$dest"))"

# Keeping it is a help for the next clone, not something to fail on.
if [ -n "$cached" ]; then
	if mkdir -p "$cache/weft" 2>/dev/null && cp "$dest" "$cached.$$" 2>/dev/null && mv -f "$cached.$$" "$cached"; then
		say "kept a copy as $cached"
	else
		rm -f "$cached.$$" 2>/dev/null
		say "could not keep a copy as $cached"
	fi
fi
exit 0
