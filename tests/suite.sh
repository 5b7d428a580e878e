#!/bin/sh
# Every test program of the workspace, several at once: most of them wait for servers, a few think. `cargo test` runs
# one after the other, and takes three times as long.
#
#   SUITE_JOBS   programs at once (default: one more than there are cores)
set -eu
cargo=${CARGO:-cargo}
cores=$(nproc 2>/dev/null || echo 2)
jobs=${SUITE_JOBS:-$((cores + 1))}

# The longest first, so that none of them is left over at the end; the rest in the order in which they were built.
slowest="outbound lanes model chaos mutations proxies observability faults order_and_bytes v1 pair broker sessions memory fedctl"

here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
trap 'exit 130' INT TERM

"$cargo" test --workspace --no-run --message-format=json-render-diagnostics >"$here/build"
sed -n 's/.*"manifest_path":"\([^"]*\)\/Cargo\.toml".*"overflow_checks":[a-z]*,"test":true}.*"executable":"\([^"]*\)".*/\1|\2/p' "$here/build" >"$here/all"
programs=$(wc -l <"$here/all")
[ "$programs" -gt 0 ] || { echo "no test program was built" >&2; exit 1; }
for name in $slowest; do grep "/$name-[0-9a-f]*\$" "$here/all" || true; done >"$here/ordered"
grep -vxF -f "$here/ordered" "$here/all" >>"$here/ordered" || true

# One program: its whole output if it fails, else what it counted.
cat >"$here/one" <<'ONE'
#!/bin/sh
package=${1%%|*} program=${1#*|} here=$2
name=$(basename "$package")/$(basename "$program" | sed 's/-[0-9a-f]*$//')
log=$here/log.$$
began=$(date +%s)
# Tests that wait for servers get more threads than cores; those that think don't.
case $package in */tests) RUST_TEST_THREADS=${RUST_TEST_THREADS:-4}; export RUST_TEST_THREADS ;; esac
if (cd "$package" && CARGO_MANIFEST_DIR=$package "$program") >"$log" 2>&1; then said=ok; else said=FAILED; fi
took=$(($(date +%s) - began))
{
    [ $said = ok ] || { echo "---- $name"; cat "$log"; echo "---- end of $name"; }
    printf '%-34s %3d s  %s\n' "$name" "$took" "$(grep '^test result' "$log" || echo "test result: $said without a word")"
    grep ': not checked: ' "$log" || true # what is missing on this machine is said, whatever passed
} >"$log.told"
cat "$log.told"
grep '^test result' "$log" >>"$here/results" || true
[ $said = ok ] || { echo "$name" >>"$here/failed"; exit 1; }
ONE
chmod +x "$here/one"

code=0
xargs -P "$jobs" -I{} "$here/one" {} "$here" <"$here/ordered" || code=1
"$cargo" test --workspace --doc --quiet >"$here/doc" 2>&1 || { cat "$here/doc"; echo "doc tests" >>"$here/failed"; code=1; }
echo "$programs test programs; what is skipped here, make test-long runs"
awk '{ passed += $4; failed += $6; skipped += $8 } END { printf "suite: %d passed, %d failed, %d skipped\n", passed, failed, skipped }' \
    "$here/results"
[ ! -s "$here/failed" ] || { echo "failed: $(tr '\n' ' ' <"$here/failed")" >&2; code=1; }
exit $code
