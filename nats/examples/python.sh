#!/bin/sh
# Prints the path of a Python that has what publish.py needs, and nothing else, on standard output.
#
# In this order: $FED_PYTHON, what an earlier run left in .python/ of the repository, a virtual environment made there with
# the python3 in PATH (3.9 or newer, with its venv and pip modules) and the package index that its pip is set up for.
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
# One run installs, the others wait and find what it left.
if command -v flock >/dev/null; then
    exec 9>"$dir/lock"
    flock 9
fi
ours=$dir/venv/bin/python
if fit "$ours"; then
    echo "$ours"
    exit 0
fi
command -v python3 >/dev/null || give_up "there is no python3 here"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || give_up "python3 is older than 3.9"
say "making a virtual environment with nats-py (once)"
rm -rf "$dir/venv"
python3 -m venv "$dir/venv" >&2 || give_up "python3 has no venv module"
"$ours" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" >&2 ||
    give_up "pip could not install nats-py"
fit "$ours" || give_up "nats-py was installed, and can't be imported"
echo "$ours"
