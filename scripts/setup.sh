#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: setup.sh FOLDER
# A virtual environment with exactly the versions of constraints.txt, and this package as an editable one.
# What is there already stays; one whose Python is gone or unsuitable is made anew.
set -eu
cd "$(dirname "$0")/.."
venv=$1

suitable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    # A name may be there and not work, such as a version manager's placeholder.
    for name in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
        if suitable "$name"; then
            echo "$name"
            return
        fi
    done
    echo "No suitable Python: tried ${PYTHON:-python3.13, python3.12, python3.11, python3 and python}." >&2
    echo "Needed is Python 3.11, 3.12 or 3.13 with venv and pip (on Debian and Ubuntu the package" >&2
    echo "python3-venv), as one of these names on the PATH or as: make PYTHON=/path/to/python ..." >&2
    return 1
}

began=$(date +%s)
if ! suitable "$venv/bin/python"; then
    python=$(find_python)
    echo "Creating $venv with $("$python" --version)."
    "$python" -m venv --clear "$venv"
fi
echo "Installing $(grep -c == constraints.txt) pinned packages into $venv (once; a minute or two)."
pip() {
    "$venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check "$@"
}
# All of them are pinned, so there is nothing to resolve.
pip install --no-deps --no-compile --requirement constraints.txt
pip install --no-deps --no-build-isolation --editable .
pip check
# On all cores, as pip does not; a file that no Python of this version can compile is nobody's start-up time.
"$venv/bin/python" -m compileall -qq -j 0 "$venv/lib" || true
echo "Ready after $(($(date +%s) - began)) s."
