#!/bin/sh
# Prints the path of a program that Debian packages, and nothing else, on standard output: the end-to-end tests run the files of
# deploy/ with the real programs.
#
#   sh tests/debian.sh nginx|caddy|prometheus|promtool
#
# In this order: $NGINX, $CADDY, .., PATH, what an earlier run left in .debian/, Debian's package taken with apt from the
# mirror that this machine already uses and unpacked into .debian/ of the repository. Its version is what Debian has for
# this machine; it is said on standard error. Nothing needs root, and nothing outside .debian/ changes.
set -eu

name=${1:-}
case $name in
    nginx) given=${NGINX:-} package=nginx place=usr/sbin/nginx version='-v' ;;
    caddy) given=${CADDY:-} package=caddy place=usr/bin/caddy version='version' ;;
    prometheus) given=${PROMETHEUS:-} package=prometheus place=usr/bin/prometheus version='--version' ;;
    promtool) given=${PROMTOOL:-} package=prometheus place=usr/bin/promtool version='--version' ;;
    *) echo "usage: sh tests/debian.sh nginx|caddy|prometheus|promtool" >&2; exit 64 ;;
esac
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
dir=${DEBIAN_DIR:-$(dirname -- "$here")/.debian}

say() { echo "tests/debian.sh: $*" >&2; }

give_up() {
    say "$1"
    say "install $package (apt install $package), or set $(echo "$name" | tr a-z A-Z) to the binary's path."
    exit 1
}

# Is it there, and does it run? (A library may be missing.)
fit() { [ -n "$1" ] && [ -x "$1" ] && "$1" "$version" >/dev/null 2>&1; }

found() {
    say "$1: $("$1" "$version" 2>&1 | head -n 1)"
    echo "$1"
    exit 0
}

if [ -n "$given" ]; then
    fit "$given" && found "$given"
    give_up "$given is no $name that runs here"
fi
in_path=$(command -v "$name" || :)
if fit "$in_path"; then found "$in_path"; fi

mkdir -p "$dir"
dir=$(CDPATH='' cd -- "$dir" && pwd)
ours=$dir/$place
if fit "$ours"; then found "$ours"; fi

# One run installs, the others wait and find what it left.
if command -v flock >/dev/null; then
    exec 9>"$dir/lock"
    flock 9
    if fit "$ours"; then found "$ours"; fi
fi

for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || give_up "no $name here, and no $tool to get one with"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"

# The lists of this machine, or, on a fresh image without any, lists of our own.
taken() { (cd "$work" && apt-get -q -o APT::Sandbox::User=root "$@" download "$package" >&2); }
say "taking $package from this machine's Debian mirror (once)"
if ! taken -o Dir::Cache="$work/cache"; then
    private="-o Dir::State::lists=$work/lists -o Dir::Cache=$work/cache -o APT::Sandbox::User=root"
    # shellcheck disable=SC2086 # options, one word each
    apt-get -q $private update >&2 || give_up "apt could not read its sources"
    # shellcheck disable=SC2086
    taken $private || give_up "apt could not download $package"
fi

# Unpacked beside its place and moved there last, so that nobody ever finds half a binary.
dpkg -x "$work/$package"_*.deb "$work/unpacked"
mkdir -p "$(dirname -- "$ours")"
for program in "$work/unpacked/$(dirname -- "$place")"/*; do
    [ -f "$program" ] || continue
    last=$(dirname -- "$ours")/$(basename -- "$program")
    cp "$program" "$last.new"
    mv "$last.new" "$last"
done
fit "$ours" || give_up "the package's $name does not run here: a library is missing"
found "$ours"
