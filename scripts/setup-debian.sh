#!/usr/bin/env bash
# Installs the Debian packages the demo and the tests call, only those that are missing.
set -euo pipefail

# A command that must exist, and the package that brings it.
needed=(ffmpeg:ffmpeg curl:curl cc:build-essential npm:npm skopeo:skopeo umoci:umoci)

missing=()
for pair in "${needed[@]}"; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# Debian's python3 comes without ensurepip, which virtual environments are made with.
if ! /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null; then
    missing+=(python3 python3-venv)
fi
[ "${#missing[@]}" -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup: as root, run: apt-get install -y --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
