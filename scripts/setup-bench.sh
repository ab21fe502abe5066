#!/usr/bin/env bash
# Installs what `zipline bench proxy` measures against and calls: Debian's nginx, and iproute2 for its network namespaces.
set -euo pipefail

needed=(/usr/sbin/nginx:nginx-light /sbin/ip:iproute2 /usr/bin/unshare:util-linux)

missing=()
for pair in "${needed[@]}"; do
    [ -x "${pair%%:*}" ] || missing+=("${pair##*:}")
done
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
# The package starts a server of its own; this one is only started by the benchmark.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod +x "$policy"
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
