#!/usr/bin/env bash
# Makes build/python-sdk, a virtual environment of its own, with what python/tests need and the package itself, built by
# `pip install ./python` from what `make build` built.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=build/python-sdk
# As in setup-python.sh: functions run under UIDs of their own, which reach the system's interpreter.
if [ ! -x "$venv/bin/python" ]; then
    python=$(command -v /usr/bin/python3 || command -v python3)
    "$python" -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r python/tests/requirements.txt
# Its dependencies stand in the requirements; --no-deps and --force-reinstall leave those alone and renew the package.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps \
    --config-settings profile=dev ./python
