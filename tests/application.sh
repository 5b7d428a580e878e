#!/bin/sh
# Builds tests/application, a remote instance on the `activitypub_federation` crate, and prints its program's path, and
# nothing else, on standard output.
#
# It is a workspace of its own: that crate is AGPL and stays out of ours, its lock file included, and so do the features that it
# turns on in crates that the services use.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$(dirname -- "$here")/target}/application

program=$target/debug/fedstream-test-application

# Not even asked of cargo where nothing changed: it would wait for every other cargo of this machine.
if [ ! -x "$program" ] || [ -n "$(find "$here/application" -type f ! -path '*/target/*' -newer "$program")" ]; then
    echo "tests/application.sh: building the application on activitypub_federation (once, some minutes)" >&2
    CARGO_TARGET_DIR=$target ${CARGO:-cargo} build --quiet --locked --manifest-path "$here/application/Cargo.toml" >&2
    touch "$program" # cargo leaves it alone where only a time changed
fi
echo "$program"
