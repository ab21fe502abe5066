#!/usr/bin/env bash
# Makes .venv and installs exactly the requirements that stand in the files given.
#
# The system's interpreter comes first: the engine runs functions under UIDs of their own, and those cannot
# reach an interpreter that is installed below somebody's home directory.
set -euo pipefail
cd "$(dirname "$0")/.."

python=
for candidate in /usr/bin/python3 "$(command -v python3 || true)"; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "setup: Python 3.11 or later with venv is needed (Debian: python3 python3-venv)" >&2
    exit 1
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
arguments=()
for file in "$@"; do
    arguments+=(-r "$file")
done
.venv/bin/python -m pip install --quiet --disable-pip-version-check "${arguments[@]}"
