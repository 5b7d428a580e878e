#!/bin/sh
# Prints the path of a Python that has what publish.py needs, and nothing else, on standard output.
#
# In this order: $FED_PYTHON; what an earlier run left in .python/ of the repository; the python3 in PATH (3.9 or newer), with a
# virtual environment there; Debian's python3 and pip, taken with apt from the mirror that this machine already uses and unpacked
# there, where python3 or its venv module is missing. nats-py comes from the package index that pip is set up for.
# Nothing needs root, and nothing outside .python/ changes.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
dir=${PYTHON_DIR:-$(dirname -- "$(dirname -- "$here")")/.python}

say() { echo "nats/examples/python.sh: $*" >&2; }

give_up() {
    say "$1"
    say "install Python with its venv module (Debian: apt install python3-venv), or set FED_PYTHON to a python that has nats-py"
    say "(FED_PYTHON=none leaves the test of the Python example out)."
    exit 1
}

fit() { [ -x "$1" ] && "$1" -c 'import nats' 2>/dev/null; }

if [ -n "${FED_PYTHON:-}" ]; then
    fit "$FED_PYTHON" || give_up "FED_PYTHON=$FED_PYTHON is no python that has nats-py"
    echo "$FED_PYTHON"
    exit 0
fi
mkdir -p "$dir"
dir=$(CDPATH='' cd -- "$dir" && pwd)
# One run installs, the others wait and find what it left.
if command -v flock >/dev/null; then
    exec 9>"$dir/lock"
    flock 9
fi
for ours in "$dir/venv/bin/python" "$dir/python"; do
    if fit "$ours"; then
        echo "$ours"
        exit 0
    fi
done

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; }

if command -v python3 >/dev/null && new_enough python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; then
    say "making a virtual environment with nats-py (once)"
    rm -rf "$dir/venv"
    python3 -m venv "$dir/venv" >&2 || give_up "python3 can't make a virtual environment"
    ours=$dir/venv/bin/python
    "$ours" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" >&2 ||
        give_up "pip could not install nats-py"
    fit "$ours" || give_up "nats-py was installed, and can't be imported"
    echo "$ours"
    exit 0
fi

for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || give_up "there is no python3 with its venv module here, and no $tool to get one with"
done
say "taking python3 and pip from this machine's Debian mirror, and nats-py (once)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs"

# What of it is not installed here, but for libc, which is: names differ with the release, and apt knows them.
# shellcheck disable=SC2086 # options and names, one word each
fetch() {
    apt-get -q $private --simulate --no-install-recommends install python3 python3-pip-whl >"$work/plan" || return 1
    packages=$(sed -n '/^Inst libc\(6\|-bin\) /d; s/^Inst \([^ ]*\).*/\1/p' "$work/plan")
    [ -z "$packages" ] || (cd "$work/debs" && apt-get -q $private download $packages >&2)
}

# The lists of this machine, or, on a fresh image without any, lists of our own.
private="-o Dir::Cache=$work/cache -o APT::Sandbox::User=root"
if ! fetch 2>/dev/null; then
    private="$private -o Dir::State::lists=$work/lists"
    # shellcheck disable=SC2086
    apt-get -q $private update >&2 || give_up "apt could not read its sources"
    fetch || give_up "apt could not download python3 and pip"
fi
mkdir "$work/debian"
for package in "$work"/debs/*.deb; do [ ! -f "$package" ] || dpkg -x "$package" "$work/debian"; done
rm -rf "$dir/debian" "$dir/python"
mv "$work/debian" "$dir/debian"

# What is here already does not come along: the python3 in PATH, where only its venv module was missing.
first() { for each in "$@"; do [ ! -e "$each" ] || { echo "$each"; return; }; done; }
python=$(first "$dir/debian/usr/bin/python3" "$(command -v python3 || :)" /usr/bin/python3)
pip=$(first "$dir"/debian/usr/share/python-wheels/pip-*.whl /usr/share/python-wheels/pip-*.whl)
[ -n "$python" ] && [ -n "$pip" ] || give_up "Debian's packages brought no python3, or no pip"
libraries=$(find "$dir/debian" -type d -name '*-linux-gnu*' -path '*/lib/*' | tr '\n' ':')$(printenv LD_LIBRARY_PATH || :)
cat >"$work/python" <<PYTHON
#!/bin/sh
LD_LIBRARY_PATH="${libraries%:}" PYTHONPATH="$dir/debian/site" exec "$python" "\$@"
PYTHON
chmod +x "$work/python"
new_enough "$work/python" || give_up "Debian's python3 does not run here, or is older than 3.9"
PIP_ROOT_USER_ACTION=ignore "$work/python" "$pip/pip" install --quiet --disable-pip-version-check \
    --target "$dir/debian/site" -r "$here/requirements.txt" >&2 || give_up "pip could not install nats-py"
fit "$work/python" || give_up "nats-py was installed, and can't be imported"
mv "$work/python" "$dir/python"
echo "$dir/python"
