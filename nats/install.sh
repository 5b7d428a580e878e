#!/bin/sh
# Prints the path of a nats-server new enough for fedstream, and nothing else, on standard output.
#
# In this order: $NATS_SERVER, nats-server in PATH, what an earlier run left in .nats/, one .deb taken with apt from
# the mirror that this machine already uses (of a newer suite), unpacked into .nats/ of the repository. apt's own
# sources, lists and packages stay as they are, and nothing needs root.
#
#   NATS_SERVER  a nats-server to use; an unfit one is an error, never silently replaced
#   NATS_DIR     where to unpack (default: .nats of the repository)
#   NATS_SUITE   the Debian suite to take it from (default: forky, the oldest with a 2.12 or newer)
set -eu

oldest=2.12.0 # older clusters lose data: see "version" in README.md beside this file
suite=${NATS_SUITE:-forky}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
dir=${NATS_DIR:-$(dirname -- "$here")/.nats}

say() { echo "nats/install.sh: $*" >&2; }

give_up() {
    say "$1"
    say "get nats-server $oldest or newer from the releases of nats-io/nats-server, or run the container image"
    say "nats:2.15 or newer, and set NATS_SERVER to the binary's path."
    exit 1
}

# Is it there, does it run, is it new enough?
fit() {
    [ -n "$1" ] && [ -x "$1" ] || return 1
    version=$("$1" --version 2>/dev/null | sed -n 's/^nats-server: v\([0-9][0-9.]*\).*/\1/p')
    [ -n "$version" ] && [ "$(printf '%s\n' "$oldest" "$version" | sort -V | head -n 1)" = "$oldest" ]
}

if [ -n "${NATS_SERVER:-}" ]; then
    fit "$NATS_SERVER" || give_up "NATS_SERVER=$NATS_SERVER is not a nats-server $oldest or newer"
    echo "$NATS_SERVER"
    exit 0
fi

in_path=$(command -v nats-server || :)
if fit "$in_path"; then
    echo "$in_path"
    exit 0
fi

mkdir -p "$dir"
dir=$(CDPATH='' cd -- "$dir" && pwd) # apt is called from another directory below
ours=$dir/usr/sbin/nats-server
if fit "$ours"; then
    echo "$ours"
    exit 0
fi

# One run installs, the others wait and find what it left.
if command -v flock >/dev/null; then
    exec 9>"$dir/lock"
    flock 9
    if fit "$ours"; then
        echo "$ours"
        exit 0
    fi
fi

for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || give_up "no nats-server $oldest or newer here, and no $tool to get one with"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || give_up "no Debian archive keyring ($keyring) to check a package with"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/none"

# The address of the Debian mirror that apt is configured for.
mirror() {
    apt-get "$@" indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1
}

# apt, with its state in a directory of ours and the sandbox user off (that directory is private to this user).
private_apt() {
    apt-get -q -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root "$@"
}

uri=$(mirror)
if [ -z "$uri" ]; then # a fresh image has no lists yet: read them, privately
    private_apt update >&2 || :
    uri=$(mirror -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache")
fi
[ -n "$uri" ] || give_up "no Debian mirror among apt's sources"

# The same, with one source only: the newer suite of that mirror.
echo "deb [signed-by=$keyring] $uri $suite main" >"$work/sources.list"
newer_apt() {
    private_apt -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts="$work/none" \
        -o Dir::Etc::preferencesparts="$work/none" -o Acquire::Languages=none \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@" >&2
}

say "taking nats-server from the Debian suite $suite (once)"
newer_apt update || give_up "apt could not read the suite $suite"
(cd "$work" && newer_apt download nats-server) || give_up "apt could not download nats-server from the suite $suite"

# Unpacked beside its place and moved there last, so that nobody ever finds half a binary.
dpkg -x "$work"/nats-server_*.deb "$work/unpacked"
mkdir -p "$dir/usr/sbin"
cp "$work/unpacked/usr/sbin/nats-server" "$ours.new"
mv "$ours.new" "$ours"
fit "$ours" || give_up "the package's nats-server is older than $oldest, or does not run here"
echo "$ours"
