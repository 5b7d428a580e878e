#!/bin/sh
# Checks the dashboards in deploy/observability against Grafana's own types: every field of every panel is one that Grafana
# knows, of the right type, and nothing is misspelled.
#
#   sh tests/dashboards.sh [FILE.json ...]
#
# Needs node and npm; the packages (tests/dashboards/package.json, pinned) come from the registry that npm is set up for, into
# .dashboards/ of the repository, once. Exit 0: right. 69: not checked, and standard error says why. Any other: a fault, in tsc's words.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
dir=${DASHBOARDS_DIR:-$root/.dashboards}
[ $# -gt 0 ] || set -- "$root"/deploy/observability/grafana/dashboards/*.json

not_checked() {
    echo "tests/dashboards.sh: not checked: $*" >&2
    exit 69
}

for tool in node npm; do
    command -v "$tool" >/dev/null || not_checked "there is no $tool here (apt install npm)"
done

# One run installs, the others wait and find what it left: whole, or not at all.
mkdir -p "$dir"
if command -v flock >/dev/null; then
    exec 9>"$dir/lock"
    flock 9
fi
if ! cmp -s "$here/dashboards/package-lock.json" "$dir/installed"; then
    echo "tests/dashboards.sh: taking Grafana's types from the npm registry (once)" >&2
    cp "$here/dashboards/package.json" "$here/dashboards/package-lock.json" "$here/dashboards/.npmrc" "$dir"
    (cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund >&2) || not_checked "npm could not get its packages"
    cp "$here/dashboards/package-lock.json" "$dir/installed"
fi

work=$(mktemp -d "$dir/check.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cp "$here/dashboards/board.ts" "$work"
for file in "$@"; do
    {
        echo 'import type { Board } from "./board.js";'
        printf 'export const board: Board = '
        cat "$file"
    } >"$work/$(basename "$file").ts"
done
"$dir/node_modules/.bin/tsc" --noEmit --strict --skipLibCheck --module nodenext --moduleResolution nodenext --target es2022 \
    --pretty false "$work"/*.json.ts
echo "tests/dashboards.sh: $# dashboards are what Grafana's types say" >&2
